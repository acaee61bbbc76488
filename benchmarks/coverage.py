"""How often do the 95 % intervals hold the truth? A simulation, with the clips of the committed study's patients.

    python benchmarks/coverage.py [REPEATS]      # prints a line of JSON per setting

Two methods that are equally good in the long run, so that the true difference in Score is 0. An answer is right with a
probability whose logit has a part of the patient, and, for each method apart, of the patient, of the seed and of both.
Every repeat draws new patients, who have the clips of real ones drawn with replacement, and new seeds.
"""

import json
import sys

import numpy as np
import pandas as pd
from scipy import stats

from qlung import evaluation
from qlung.book import results
from qlung.evaluation.intervals import contributions

# sd of the logit's parts: the method's with a patient, with a seed, with both
SETTINGS = {"patients dominate": (0.6, 0.05, 0.2), "alike": (0.3, 0.2, 0.2), "seeds dominate": (0.1, 0.4, 0.3)}


def repeat(clips: np.ndarray, seeds: int, sds: tuple, rng: np.random.Generator) -> pd.DataFrame:
    """Predictions of two methods, normal or crackle; ``clips`` [P, 2]: each real patient's normal and abnormal ones."""
    clips = clips[rng.integers(len(clips), size=len(clips))]
    patient = np.repeat(np.arange(len(clips)), clips.sum(1))
    label = np.concatenate([np.repeat([0, 1], pair) for pair in clips])
    shared, tables = rng.normal(0, 0.8, (len(clips), 2)), []
    for method in ("qlung", "ce"):
        with_patient = rng.normal(0, sds[0], (len(clips), 2))
        for seed in range(seeds):
            logit = shared + with_patient + rng.normal(0, sds[1], 2) + rng.normal(0, sds[2], (len(clips), 2))
            right = rng.random(len(label)) < 1 / (1 + np.exp(-logit[patient, label]))
            answer = np.where(right, label, 1 - label)
            tables.append(pd.DataFrame({"method": method, "seed": seed, "patient_id": patient, "label": label,
                                        "predicted": answer}))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def coverage(clips: np.ndarray, seeds: int, sds: tuple, repeats: int) -> dict:
    """Share of intervals that hold 0: of the bootstrap, of Student's t, of the wider one; median widths; p < 0.05."""
    rng, rows = np.random.default_rng(seeds), []
    while len(rows) < repeats:
        table = repeat(clips, seeds, sds, rng)
        if table["label"].nunique() < 2:
            continue
        draws = evaluation.bootstrap(table, draws=500)
        se, df = evaluation.crossed(contributions(table, "qlung", "ce"))
        measured = draws["qlung"][0] - draws["ce"][0]
        pair = evaluation.interval(draws["qlung"] - draws["ce"]), stats.t.interval(0.95, df, measured, se)
        holds = [low <= 0 <= high for low, high in (*pair, max(pair, key=np.ptp))]
        rows.append((*holds, *map(np.ptp, pair), 2 * stats.t.sf(abs(measured / se), df) < 0.05))
    holds, widths = np.mean(rows, axis=0), np.median(rows, axis=0)
    return {"bootstrap": holds[0], "t": holds[1], "wider": holds[2], "bootstrap_width": widths[3], "t_width": widths[4],
            "p_below_0.05": holds[5]}  # fmt: skip


def main() -> None:
    repeats, kept = int([*sys.argv, 400][1]), results.evidence("sc")
    for corpus in ("icbhi", "sprsound"):
        once = kept[(kept["corpus"] == corpus)].drop_duplicates("event_id")
        clips = pd.crosstab(once["patient_id"], once["label"] > 0).to_numpy()
        for name, sds in SETTINGS.items():
            for seeds in (3, 5, 10):
                found = coverage(clips, seeds, sds, repeats)
                row = {"corpus": corpus, "patients": len(clips), "setting": name, "seeds": seeds, "repeats": repeats}
                print(json.dumps(row | {key: round(value, 3) for key, value in found.items()}), flush=True)


if __name__ == "__main__":
    main()
