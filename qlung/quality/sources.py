"""Which quality value in [0, 1] the margin of each clip uses: the paper's AQS, its controls, or a learned one.

``shuffled``, ``inverted``, the fitted sources and ``oracle_snr`` assign the same set of values as AQS, by rank: runs
then differ in *which clip* gets a large margin and in nothing else, neither in its mean nor in its spread. Other
definitions of AQS have values of their own, as the paper's would if it meant them.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from .. import quality
from ..errors import QualityError
from . import learned

SOURCES = {
    "aqs": "the paper's score",
    "aqs_device": "AQS, H and R shifted so that every device has the same mean",
    "aqs_listed_device": "the same with the devices of the owners' list (ICBHI's filename_differences.txt)",
    "aqs_frames": "AQS with the mean of the frames' entropies, FFT bins",
    "aqs_plane": "AQS with the entropy of the whole time-frequency plane, FFT bins",
    "aqs_bins": "AQS with the entropy of the mean power spectrum, FFT bins",
    "aqs_magnitude": "the same of the mean magnitudes",
    "aqs_cycle": "AQS of the cycle before it is repeated to 8 s",
    "aqs_recording": "AQS of the whole recording, for each of its cycles",
    "shuffled": "AQS of another training clip at random",
    "constant": "mean AQS for every clip",
    "device_mean": "mean AQS of the clip's device",
    "listed_device_mean": "mean AQS of the clip's device by the owners' list",
    "inverted": "the best clip gets the worst one's AQS",
    "learned_cheap": "fitted on SPRSound train's Poor Quality labels, twenty band features",
    "learned_embedding": "fitted on the same labels, AudioSet embedding",
    "clean_cheap": "fitted on known degradations of ICBHI train, twenty band features",
    "oracle_snr": "true SNR, synthetic recordings only",
}
DEFINITIONS = {  # arguments of `quality.measure`
    "aqs_frames": {"definition": {"scope": "frames"}}, "aqs_plane": {"definition": {"scope": "plane"}},
    "aqs_bins": {"definition": {"scope": "mean"}}, "aqs_magnitude": {"definition": {"scope": "mean", "power": 1.0}},
    "aqs_cycle": {"audio": "cycle"}, "aqs_recording": {"audio": "recording"},
}  # fmt: skip
SEEN_SPRSOUND = ("learned_cheap", "learned_embedding")  # with these a run is no longer out-of-distribution on SPRSound


def training_quality(corpus, source: str = "aqs", alpha: float = 0.7, beta: float = 0.3, normalise: str = "none",
                     seed: int = 0) -> tuple[np.ndarray, dict]:  # fmt: skip
    """Quality of the training events, with the metadata of how it was computed.

    Parameters
    ----------
    corpus : Corpus
        The training events: whatever is fitted is fitted on them alone.
    source : one of ``SOURCES``
    alpha, beta, normalise
        Of the QualityScorer, whose values every source assigns.
    seed : int
        For "shuffled".

    Returns
    -------
    values : array [shape=(training events,), range 0..1]
        Neutral (the mean) for a clip whose quality cannot be computed.
    metadata : dict
        For run.json: source, missing (how many are neutral), sees_sprsound, and the fields of the scorer.

    Raises
    ------
    QualityError
        If the source is unknown, or "oracle_snr" is wanted for recordings without a true SNR.
    """
    if source not in SOURCES:
        raise QualityError(f"unknown quality source '{source}': choose from {', '.join(SOURCES)}")
    h, r = quality.measure(corpus, **DEFINITIONS.get(source, {})).T
    device = corpus.of_events("listed_device" if "listed" in source else "device").to_numpy()
    devices = device if source in ("aqs_device", "aqs_listed_device") else None
    scorer = quality.QualityScorer(alpha, beta, normalise).fit(h, r, devices)
    values, known = scorer.score(h, r, devices), np.isfinite(h)
    if source == "constant":
        values = np.full(len(values), values[known].mean())
    elif source in ("device_mean", "listed_device_mean"):
        values = pd.Series(values).groupby(device).transform("mean").to_numpy()
    elif devices is None and source not in ("aqs", *DEFINITIONS):
        order = -values if source == "inverted" else _order(corpus, source, seed)
        known &= np.isfinite(order)
        values = assign_by_rank(order, values, known)
    metadata = {"source": source, "missing": int((~known).sum()), "sees_sprsound": source in SEEN_SPRSOUND}
    return values, metadata | {"scorer": dataclasses.asdict(scorer)}


def _order(corpus, source: str, seed: int) -> np.ndarray:
    if source == "shuffled":
        return np.random.default_rng(seed).random(len(corpus.events))
    if source == "oracle_snr":
        return true_snr(corpus)
    model = learned.load(source)
    return model(learned.extract_features(corpus, model.kind))


def assign_by_rank(order, values, known) -> np.ndarray:
    """The known values reassigned to the clips in the rank order of ``order``; ties get their mean."""
    out = np.full(len(values), values[known].mean() if known.any() else values.mean())
    assigned = pd.Series(np.sort(values[known]), index=np.sort(order[known])).groupby(level=0).mean()
    out[known] = assigned.loc[order[known]].to_numpy()
    return out


def true_snr(corpus) -> np.ndarray:
    """True SNR [dB] of every event of a synthetic corpus, from the truth.csv beside it."""
    beside = (folder / "truth.csv" for folder in Path(corpus.recordings["path"].iloc[0]).parents)
    truth = next(filter(Path.is_file, beside), None)
    if truth is None:
        raise QualityError("oracle_snr: only synthetic recordings come with their true SNR (a truth.csv beside them)")
    return pd.read_csv(truth).set_index("event_id")["snr_db"].reindex(corpus.events["event_id"]).to_numpy(float)
