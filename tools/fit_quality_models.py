"""Fit the learned quality models that come with the package; for maintainers.

    python tools/fit_quality_models.py DATA      # DATA holds the real ICBHI and SPRSound; `make models` calls it

Writes ``qlung/quality/models/*.json``: two models of SPRSound's Poor Quality label, one of known degradations.
"""

import dataclasses
import json
import sys

import numpy as np

from qlung import load_corpus
from qlung.audio import degrade
from qlung.quality import indicators, learned


def fit(features: np.ndarray, good: np.ndarray, kind: str, seen: str) -> learned.LinearQuality:
    """`learned.classifier` fitted on the rows that are not NaN, as plain numbers."""
    known = np.isfinite(features).all(1)
    scaler, regression = learned.classifier(kind).fit(features[known], good[known])
    numbers = [values.tolist() for values in (scaler.mean_, scaler.scale_, regression.coef_[0])]
    return learned.LinearQuality(kind, seen, *numbers, float(regression.intercept_[0]))


def fit_on_labels(sprsound, kind: str) -> learned.LinearQuality:
    """Fit on SPRSound's training recordings, first 8 s of each, against the physicians' Poor Quality label."""
    whole = indicators.whole_recordings(sprsound.select("train"))
    good = whole.recordings["quality_label"] == "good"
    return fit(learned.extract_features(whole, kind), good.to_numpy(), kind, "sprsound train")


def fit_on_degradations(corpus, clips: int = 300) -> learned.LinearQuality:
    """Fit on known degradations of ``clips`` training clips of the corpus, without any label.

    Clean clips and severity 1 count as good, severities 4 and 5 as poor; gain is left out.
    """
    table = indicators.severity_table(degrade.sample(corpus.select("train"), clips))
    clear = table[table["severity"].isin((0, 1, 4, 5)) & (table["kind"] != "gain")]
    seen = f"known degradations of {corpus.name} train"
    return fit(clear[indicators.FEATURES].to_numpy(), clear["severity"].to_numpy() < 2, "bands", seen)


def to_json(model: learned.LinearQuality) -> str:
    """The model as ``learned.load`` reads it: plain numbers, six digits of each."""
    fields = dataclasses.asdict(model)
    for name in ("mean", "scale", "weight"):
        fields[name] = [float(f"{x:.6g}") for x in fields[name]]
    return json.dumps(fields | {"bias": float(f"{model.bias:.6g}")}) + "\n"


def main(data: str) -> None:
    """Fit the three models on the real corpora under ``data`` and write them into the package."""
    sprsound = load_corpus("sprsound", data)
    models = {
        "learned_cheap": fit_on_labels(sprsound, "bands"),
        "learned_embedding": fit_on_labels(sprsound, "embedding"),
        "clean_cheap": fit_on_degradations(load_corpus("icbhi", data, "sc")),
    }
    for name, model in models.items():
        (learned.MODELS / f"{name}.json").write_text(to_json(model), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
