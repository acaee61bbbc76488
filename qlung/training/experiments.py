"""Training all runs of a profile, and reading what finished runs predict."""

import numpy as np
import pandas as pd
from safetensors.torch import load_model

from .. import paths, quality
from ..corpora import Corpus
from ..errors import TrainingError
from . import runs
from .loop import fit
from .model import Model, per_recording
from .profiles import load_profile, parts


def train_all(profile: str, data: str = "", progress=lambda share, line: None, **which) -> pd.DataFrame:
    """Train (or reuse) every run of a profile, or those of one ``backbone``, ``method`` or ``seed``.

    Parameters
    ----------
    progress : callable
        Receives the share of epochs done, 0 to 1, and a line, after every epoch.

    Returns
    -------
    DataFrame
        As `load_predictions` gives it.
    """
    done, rows, pairs = 0, load_profile(profile).rows(**which), parts(profile, data)
    total = len(pairs) * sum(config.epochs for _, config in rows)
    for train, tests in pairs:
        for _, config in rows:
            fit(config, train, tests, profile, lambda n, line, before=done: progress((before + n) / total, line))
            done += config.epochs
    return load_predictions(profile, data, **which)


def load_predictions(profile: str, data: str = "", **which) -> pd.DataFrame:
    """Predictions of a profile's finished runs, stacked; nothing is trained.

    Returns
    -------
    DataFrame
        ``Run.predictions`` with backbone, method (the label of `Profile.rows`), seed, run (its folder's name),
        patient_id, device, listed_device, seconds (a clip's length; of a recording, its windows') and aqs (of each test
        clip, scorer fitted on the training clips; NaN where it cannot be computed).

    Raises
    ------
    TrainingError
        If a run is not there; the message names the command that trains it.
    """
    rows, pairs = load_profile(profile).rows(**which), parts(profile, data)
    folders = {(i, *row): runs.run_folder(profile, row[1], *pair) for i, pair in enumerate(pairs) for row in rows}
    if missing := [folder for folder in folders.values() if not runs.is_finished(folder)]:
        command = f"qlung train --profile {profile}" + (f" --data {data}" if data else "")
        found = f"{len(missing)} of {len(folders)} runs of profile '{profile}' are not trained (first missing"
        raise TrainingError(f"{found}: '{missing[0]}'). Run `{command}`, or notebook 05.")
    return stacked(folders, pairs)


def stacked(folders: dict, pairs: list) -> pd.DataFrame:
    """Predictions of finished runs as `load_predictions` gives them.

    ``folders`` maps (i, label, Config) to the Path of that run on the i-th of the ``pairs`` of `profiles.parts`.
    """
    out, clips = [], [_clips(*pair) for pair in pairs]
    for (part, label, config), folder in folders.items():
        keys = {"backbone": config.backbone, "method": label, "seed": config.seed, "run": folder.name}
        table = runs.open_run(folder, config).predictions().assign(**keys)
        out.append(table.merge(clips[part], on="event_id", validate="many_to_one"))
    return pd.concat(out, ignore_index=True)


def load_models(profile: str, predictions: pd.DataFrame, backbone: str) -> dict[tuple[str, int], Model]:
    """The finished networks of one backbone behind a table of predictions, ready to predict.

    Parameters
    ----------
    predictions : DataFrame
        From `load_predictions`, or some of its rows: columns backbone, method, seed, run.

    Returns
    -------
    dict of (method, seed) -> Model
        In the order of the profile.
    """
    own = predictions[predictions["backbone"] == backbone].groupby(["method", "seed"])["run"].first()
    out = {}
    for label, config in load_profile(profile).rows(backbone):
        if (label, config.seed) in own:
            folder = paths.runs_dir(profile) / f"{backbone}-{config.method}" / own[label, config.seed]
            out[label, config.seed] = Model(config).eval()
            load_model(out[label, config.seed], folder / "model.safetensors")
    return out


def _clips(train: Corpus, tests: dict[str, Corpus]) -> pd.DataFrame:
    """What is known of all that is classified, test clips or recordings: the last columns of `load_predictions`."""
    scorer = quality.QualityScorer().fit(*quality.measure(train).T)
    out = []
    for test in tests.values():
        h, r = quality.measure(test).T
        known = np.where(np.isfinite(h) & np.isfinite(r), scorer.score(h, r), np.nan)
        columns = {name: test.of_events(name) for name in ("patient_id", "device", "listed_device")}
        columns |= {"aqs": known, "seconds": test.events["end_s"] - test.events["start_s"]}
        rows = test.events[["event_id", "recording_id"]].assign(**columns)
        rows = per_recording(rows) if test.unit == "recording" else rows
        out.append(rows.drop(columns="recording_id"))
    return pd.concat(out)
