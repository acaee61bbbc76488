"""Sensitivity to degradation: the severity table, and monotonicity against cases whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from qlung import load_corpus, quality
from qlung.audio import degrade
from qlung.quality import stress


def test_severity_table_and_monotonicity(synthetic_root):
    corpus = degrade.sample(load_corpus("icbhi", synthetic_root).select("train"), 10)
    table = stress.severity_table(corpus)
    assert len(table) == 10 * 26
    clean = table[table["kind"] == "none"].set_index("event_id").loc[corpus.events["event_id"]]
    assert clean[["H", "R"]].to_numpy() == pytest.approx(quality.measure(corpus), abs=1e-6)
    assert table.columns[:4].tolist() == ["kind", "severity", "amount", "event_id"]
    assert table.groupby("kind")["severity"].nunique().to_dict() == dict.fromkeys(degrade.SEVERITIES, 5) | {"none": 1}
    level = stress.monotonicity(table, "R").set_index("kind")
    assert level.loc["gain", "rho"] == pytest.approx(-1)
    assert level.loc["gain", "monotone"] == 1
    assert ((level["low"] <= level["rho"]) & (level["rho"] <= level["high"])).all()
    constant = stress.monotonicity(table.assign(constant=0.0), "constant")
    assert (constant["rho"] == 0).all()
    perfect = stress.monotonicity(table.assign(perfect=-table["severity"]), "perfect")
    assert (perfect["rho"] == 0).all()  # no spread among clean clips: nothing to compare a change with
    entropy = stress.monotonicity(table, "entropy").set_index("kind")
    assert entropy.loc["gain", "monotone"] == 1
    assert entropy.loc["noise", "rho"] > 0.5


def test_rounding_does_not_change_monotonicity(synthetic_root):
    corpus = degrade.sample(load_corpus("icbhi", synthetic_root).select("train"), 10)
    table = stress.severity_table(corpus)
    spread = table.loc[table["kind"] == "none", "flux"].std()
    results = []
    for seed in range(3):  # as three processors might round; on no grid, for a grid's lines part what is equal
        jitter = 1e-3 * spread * np.random.default_rng(seed).uniform(-1, 1, len(table))
        results.append(stress.monotonicity(table.assign(flux=table["flux"] + jitter), "flux").set_index("kind"))
        assert results[-1].loc["gain", "rho"] == 0  # flux does not depend on gain
        assert results[-1].loc["gain", "monotone"] == 1
    rhos = pd.concat([one["rho"] for one in results], axis=1)
    assert (rhos.max(axis=1) - rhos.min(axis=1)).max() < 0.05
    assert (rhos.loc["dropouts"] > 0.5).all()
