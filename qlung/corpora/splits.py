"""Ways to divide a corpus, each a pure function that returns it with another ``split`` column.

``corpus.select("train")`` and ``corpus.select("test")`` then give the sides. The official split is what the loaders
read; nothing here changes labels, times or the order of events.
"""

import dataclasses
import warnings

import pandas as pd

from ..errors import ConfigError
from .tables import Corpus


def with_split(corpus: Corpus, split: pd.Series) -> Corpus:
    """Give the recordings, row by row, another split, and their events with them."""
    recordings = corpus.recordings.assign(split=split.to_numpy())
    by_recording = recordings.set_index("recording_id")["split"]
    events = corpus.events.assign(split=corpus.events["recording_id"].map(by_recording).to_numpy())
    return dataclasses.replace(corpus, recordings=recordings, events=events)


def shared_patients(corpus: Corpus) -> pd.DataFrame:
    """Patients with recordings on both sides: patient_id, and their events in train and in test.

    In ICBHI's official split these are 156 and 218.
    """
    sides = corpus.recordings["split"].str.partition("_")[0].groupby(corpus.recordings["patient_id"]).nunique()
    side = corpus.events["split"].str.partition("_")[0]  # a named test is a test
    events = pd.crosstab(corpus.of_events("patient_id").rename("patient_id"), side)
    both = events.reindex(index=sides.index[sides > 1], columns=["train", "test"], fill_value=0)
    return both.rename_axis(columns=None).reset_index()


def all_seen(train: Corpus, test: Corpus) -> bool:
    """Whether every patient of a test is in the training corpus, too: then it is no test on new patients."""
    return train.name == test.name and set(test.recordings["patient_id"]) <= set(train.recordings["patient_id"])


def grouped_folds(corpus: Corpus, k: int = 5, seed: int = 0, by_device: bool = False) -> list[Corpus]:
    """k corpora: in the i-th, fold i is "test" and the rest "train"; the official split is ignored.

    Every event is tested once, no patient is on both sides of a fold, and classes are balanced as far as that allows;
    with ``by_device``, every listed device's classes.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    patient, stratum = corpus.of_events("patient_id"), corpus.events["label"].astype(str)
    if not 2 <= k <= patient.nunique():
        raise ConfigError(f"{k} folds of {patient.nunique()} patients: choose from 2 to the number of patients")
    if by_device:
        stratum = stratum + corpus.of_events("listed_device")
    folds = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of a class of a device with fewer than k clips
        warnings.filterwarnings("ignore", message="The least populated class")
        held = [set(patient.iloc[clips]) for _, clips in folds.split(patient, stratum, patient)]
    sides = (corpus.recordings["patient_id"].isin(fold).map({True: "test", False: "train"}) for fold in held)
    return [with_split(corpus, side) for side in sides]


def device_folds(corpus: Corpus, least: float = 0.1) -> list[Corpus]:
    """One corpus for each listed device: it is "test", the others "train", and what else its patients have "left out".

    Devices with less than the share ``least`` of the events are held out together. Every event is tested once.
    """
    share = corpus.of_events("listed_device").value_counts(normalize=True)
    small = share.index[share < least]
    group = corpus.recordings["listed_device"].where(~corpus.recordings["listed_device"].isin(small), " ".join(small))
    out, patient = [], corpus.recordings["patient_id"]
    for held in sorted(set(group)):
        side = patient.isin(set(patient[group == held])).map({True: "left out", False: "train"})
        out.append(with_split(corpus, side.mask(group == held, "test")))
    return out
