"""Measures, tests and angles against cases counted by hand, known limits and slow oracles."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from qlung import evaluation
from qlung.errors import ConfigError
from qlung.evaluation import claims, geometry

TRUTH = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
PREDICTED = [0, 0, 0, 2, 1, 3, 0, 2, 1, 1]


def answers(rng, patients: int, methods=("ce", "qlung"), seeds: int = 2, chance: float = 0.5) -> pd.DataFrame:
    """Patients who differ in clips and in how hard they are; the methods are alike."""
    clips = rng.integers(3, 9, patients)
    ids, label = np.repeat(np.arange(patients).astype(str), clips), rng.integers(0, 4, clips.sum())
    label[:2] = 0, 1
    ease = np.repeat(rng.uniform(chance - 0.3, chance + 0.3, patients), clips)
    rows = []
    for method, seed in itertools.product(methods, range(seeds)):
        predicted = np.where(rng.random(len(label)) < ease, label, rng.integers(0, 4, len(label)))
        rows.append(pd.DataFrame({"patient_id": ids, "label": label, "predicted": predicted}))
        rows[-1] = rows[-1].assign(method=method, seed=seed)
    return pd.concat(rows, ignore_index=True)


def test_measures_counted_by_hand():
    found = evaluation.measures(TRUTH, PREDICTED)
    assert [found["Sp"], found["Se"], found["Se 2"]] == pytest.approx([75, 100 * 2 / 6, 100 * 5 / 6])
    assert [found["Score"], found["Score 2"]] == pytest.approx([(75 + 100 / 3) / 2, (75 + 250 / 3) / 2])
    assert [found[name] for name in ("normal", "crackle", "wheeze", "both")] == pytest.approx([75, 100 / 3, 50, 0])
    assert found["macro-F1"] == pytest.approx(100 * (3 / 4 + 1 / 3 + 1 / 2 + 0) / 4)
    harmonic = 2 / (1 / 75 + 3 / 100)
    assert found["BioCAS"] == pytest.approx((found["Score"] + harmonic) / 2)
    assert "ECE" not in found


def test_measures_of_a_perfect_and_of_a_trivial_classifier():
    perfect = evaluation.measures(TRUTH, TRUTH, np.eye(4)[TRUTH])
    assert {name: value for name, value in perfect.items() if value != pytest.approx(100)} == {"ECE": 0}
    trivial = evaluation.measures(TRUTH, [0] * 10, np.eye(4)[[0] * 10])
    want = {"Sp": 100, "Se": 0, "Score": 50, "Se 2": 0, "Score 2": 50, "BioCAS": 25, "AUROC": 50, "ECE": 60}
    assert {name: trivial[name] for name in want} == pytest.approx(want)
    assert trivial["macro-F1"] == pytest.approx(100 * (2 * 0.4 / 1.4) / 4)
    names = [list(answer) for answer in evaluation.trivial_baselines(TRUTH).values()]
    assert names == [[0] * 10, [1] * 10]


def test_measures_without_one_side_say_so():
    healthy = evaluation.measures([0, 0], [0, 1], [[0.9, 0.1, 0, 0], [0.2, 0.8, 0, 0]])
    assert {name for name, value in healthy.items() if np.isnan(value)} == {
        "Se", "Score", "Se 2", "Score 2", "BioCAS", "BioCAS 2", "crackle", "wheeze", "both", "AUROC"
    }  # fmt: skip
    assert healthy["macro-F1"] == pytest.approx(100 * 2 / 3)  # of "normal", the only class that occurs


def test_biocas_lies_below_the_average_unless_both_sides_are_equal():
    assert evaluation.biocas(60, 60) == pytest.approx(60)
    assert evaluation.biocas(0, 0) == 0
    assert evaluation.biocas(90, 30) == evaluation.biocas(30, 90) < 60


def test_auroc_counts_pairs():
    p0 = np.array([0.9, 0.4, 0.5, 0.1])
    rows = np.stack([p0, 1 - p0, 0 * p0, 0 * p0], 1)
    assert evaluation.measures([0, 0, 1, 2], [0, 1, 0, 1], rows)["AUROC"] == 75  # 0.5 stands above 0.4, wrongly
    sure = np.array([[1, 1e-12, 0, 0], [1, 1e-9, 0, 0]], dtype=np.float32)  # 1 - p0 is 0 for both
    assert evaluation.measures([0, 1], [0, 0], sure)["AUROC"] == 100


def test_auroc_equals_sklearn_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    good, patient = rng.random(400) < 0.8, rng.integers(0, 40, 400)
    score = np.round(good + rng.normal(size=400), 1)  # with ties
    score[3] = np.nan
    result = evaluation.auroc_interval(score, good, patient, draws=300)
    assert result["AUROC"] == pytest.approx(roc_auc_score(good[np.isfinite(score)], score[np.isfinite(score)]))
    assert result["low"] < result["AUROC"] < result["high"]
    assert (result["good"] + result["poor"], result["missing"]) == (399, 1)
    alike = evaluation.auroc_interval(np.tile(score, 9), np.tile(good, 9), np.tile(patient, 9), draws=300)
    assert alike["high"] - alike["low"] == pytest.approx(result["high"] - result["low"])  # copies are no new patients


def test_weighted_auroc_equals_sklearn():
    rng = np.random.default_rng(1)
    positive, score = rng.random(200) < 0.3, rng.integers(0, 20, 200) / 7
    weight = rng.integers(0, 4, (5, 200))
    theirs = [roc_auc_score(positive, score, sample_weight=row) for row in weight]
    assert evaluation.auroc(positive, score, weight) == pytest.approx(theirs)
    assert np.isnan(evaluation.auroc(np.ones(3), [1, 2, 3]))


def test_resampling_keeps_the_number_of_units_and_measures_first():
    weight = evaluation.resample(np.random.default_rng(0), 30, 500)
    assert weight.shape == (501, 30)
    assert (weight.sum(1) == 30).all()
    assert (weight[0] == 1).all()
    assert weight[1:].var() == pytest.approx(1, abs=0.1)  # a unit is drawn Poisson(1) times, nearly
    values = np.r_[99, np.nan, np.arange(101)]
    assert evaluation.interval(values) == (2.5, 97.5)


def confident(share: float, right: int, n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """n answers "normal" of one confidence, of which so many are right."""
    return (np.arange(n) >= right).astype(int), np.tile([share, 1 - share, 0, 0], (n, 1))


def test_calibration_error_of_toys():
    for share, right, error in ((0.7, 70, 0), (0.9, 50, 40), (1.0, 25, 75), (0.6, 100, 40)):
        target, probability = confident(share, right)
        assert evaluation.measures(target, [0] * 100, probability)["ECE"] == pytest.approx(error, abs=1e-9)
    two = [np.concatenate(pair) for pair in zip(confident(0.9, 50), confident(0.7, 90), strict=True)]
    assert evaluation.measures(two[0], [0] * 200, two[1])["ECE"] == pytest.approx((40 + 20) / 2)
    assert evaluation.reliability(*two)["n"].tolist() == [100, 100]


def test_calibration_error_equals_a_slow_one():
    rng = np.random.default_rng(0)
    probability, target = rng.dirichlet([0.5] * 4, 500), rng.integers(0, 4, 500)
    error = 0
    for low in np.arange(15) / 15:
        inside = [row for row in zip(target, probability, strict=True) if low < max(row[1]) <= low + 1 / 15]
        if inside:
            error += abs(sum(int(p.argmax() == y) - max(p) for y, p in inside)) / 500
    assert evaluation.measures(target, probability.argmax(1), probability)["ECE"] == pytest.approx(100 * error)


def test_reliability_keeps_every_clip():
    table = evaluation.reliability([0, 1, 2], np.float32([[1 + 1e-7, 0, 0, 0], [0.25] * 4, [0.4, 0.2, 0.4, 0]]))
    assert table["n"].sum() == 3
    assert table["high"].max() == 100
    assert ((table["low"] < table["confidence"]) & (table["confidence"] <= table["high"])).all()


@pytest.mark.parametrize("wrong", [[[1.0, 0]] * 2, [[0.5, 0, 0, 0]] * 2, [[np.nan] * 4] * 2, [[1.0, 0, 0, 0]]])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ConfigError, match="four probabilities per clip that add up to 1"):
        evaluation.measures([0, 1], [0, 1], wrong)


def test_measure_table_is_measures_group_by_group():
    table = answers(np.random.default_rng(0), 6)
    plain = evaluation.measure_table(table, ["method", "seed"])
    assert "ECE" not in plain
    part = table.query("method == 'qlung' and seed == 1")
    want = {"n": len(part), **evaluation.measures(part["label"], part["predicted"])}
    assert plain.set_index(["method", "seed"]).loc[("qlung", 1)].to_dict() == pytest.approx(want)
    sure = table.assign(**{f"p{k}": (table["predicted"] == k) * 1.0 for k in range(4)})
    assert {"ECE", "AUROC"} <= set(evaluation.measure_table(sure, ["method"]))


@pytest.mark.parametrize("statistic", ["Sp", "Se", "Score", "Se 2", "Score 2"])
def test_bootstrap_and_measures_agree(statistic):
    table = answers(np.random.default_rng(1), 20)
    measured = evaluation.measure_table(table, ["method", "seed"]).groupby("method")[statistic].mean()
    assert evaluation.bootstrap(table, statistic, draws=10).iloc[0].to_dict() == pytest.approx(measured.to_dict())


def test_unknown_statistics_are_refused():
    with pytest.raises(ConfigError, match="unknown statistic 'F1': choose from Score, "):
        evaluation.bootstrap(answers(np.random.default_rng(1), 3), "F1")


@pytest.mark.parametrize("unit", ["patient_id", "seed"])
@pytest.mark.parametrize("statistic", ["Score", "Se 2"])
def test_permutation_test_equals_swapping_by_hand(statistic, unit):
    table = answers(np.random.default_rng(9), 5, seeds=5)
    wide = table.assign(n=table.groupby(["method", "seed"]).cumcount())
    one, other = (wide[wide["method"] == m].sort_values(["seed", "n"]) for m in ("qlung", "ce"))

    def gain(swapped) -> float:
        swap = one[unit].astype(str).isin(swapped).to_numpy()
        options = [np.where(swap, b, a) for a, b in itertools.permutations([one["predicted"], other["predicted"]])]
        pair = [one.assign(predicted=values, method=m) for values, m in zip(options, "ab", strict=True)]
        a, b = evaluation.measure_table(pd.concat(pair), ["method", "seed"]).groupby("method")[statistic].mean()
        return abs(a - b)

    swaps = [s for n in range(6) for s in itertools.combinations("01234", n)]
    p = np.mean([gain(swapped) >= gain(()) - 1e-9 for swapped in swaps])
    assert 0 < p < 1
    over = {"patient_id": "patients", "seed": "seeds"}[unit]
    assert evaluation.permutation_p(table, "qlung", "ce", statistic, over) == pytest.approx(p)


def test_permutation_test_at_its_limits():
    table = answers(np.random.default_rng(3), 30, methods=["ce"])
    same = pd.concat([table, table.assign(method="qlung")])
    assert evaluation.permutation_p(same, "qlung", "ce") == 1
    perfect = pd.concat([table, table.assign(method="qlung", predicted=table["label"])])
    assert evaluation.permutation_p(perfect, "qlung", "ce") < 0.001
    assert evaluation.permutation_p(perfect, "ce", "qlung") == evaluation.permutation_p(perfect, "qlung", "ce")
    one = np.where(table["patient_id"] == "0", table["label"], table["predicted"])
    lucky = pd.concat([table, table.assign(method="qlung", predicted=one)])
    lucky = lucky[lucky["patient_id"].astype(int) < 10]
    assert evaluation.permutation_p(lucky, "qlung", "ce") == 1  # however many clips that patient has
    few = perfect[perfect["patient_id"].isin(["0", "1", "2"])]
    assert evaluation.permutation_p(few, "qlung", "ce") == pytest.approx(2 / 8)
    healthy = perfect[perfect["label"] == 0]
    assert np.isnan(evaluation.permutation_p(healthy, "qlung", "ce"))
    assert evaluation.permutation_p(perfect[perfect["seed"] == 0], "qlung", "ce", over="seeds") == 1


def test_permutation_test_is_uniform_where_methods_are_alike():
    rng = np.random.default_rng(4)
    p = np.array([evaluation.permutation_p(answers(rng, 12), "qlung", "ce") for _ in range(150)])
    for level in (0.05, 0.2, 0.5, 0.8):
        spread = np.sqrt(level * (1 - level) / len(p))
        assert abs((p <= level).mean() - level) < 3 * spread


def test_permutation_test_needs_the_same_clips():
    table = answers(np.random.default_rng(5), 6)
    with pytest.raises(ConfigError, match="same clips"):
        evaluation.permutation_p(table.drop(table.query("method == 'ce'").index[:4]), "qlung", "ce")
    with pytest.raises(ConfigError, match="over 'clips': it needs patients or seeds"):
        evaluation.permutation_p(table, "qlung", "ce", over="clips")


def test_holm_by_hand():
    assert evaluation.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert evaluation.holm([0.2]).tolist() == [0.2]
    assert evaluation.holm([0.6, 0.9, 0.5]).tolist() == [1, 1, 1]


def test_holm_keeps_a_family_of_true_nulls():
    rng = np.random.default_rng(6)
    families = rng.random((2000, 8))
    wrong = np.mean([(evaluation.holm(p) < 0.05).any() for p in families])
    assert abs(wrong - (1 - (1 - 0.05 / 8) ** 8)) < 0.015
    assert np.mean((families < 0.05).any(1)) > 0.3  # what it protects from


def test_geometry_by_hand():
    theta = np.radians([[30, 60, 90, 120], [20, 70, 90, 90], [80, 70, 50, 90]])
    clips = pd.DataFrame(np.cos(theta), columns=["c0", "c1", "c2", "c3"]).assign(label=[0, 0, 1], method="ce")
    found = geometry.angles(clips)
    assert found["target"].tolist() == pytest.approx([30, 20, 70])
    assert found["nearest_other"].tolist() == pytest.approx([60, 70, 50])
    assert geometry.separation(clips).tolist() == pytest.approx([30, 50, -20])


def test_prototype_angles():
    assert geometry.prototype_angles(np.eye(4)).tolist() == pytest.approx([90] * 4)
    simplex = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    assert geometry.prototype_angles(simplex).tolist() == pytest.approx([109.471] * 4, abs=1e-3)
    at = np.radians([0, 20, 90, 180])
    flat = np.stack([np.cos(at), np.sin(at)], 1)
    assert geometry.prototype_angles(flat).tolist() == pytest.approx([20, 20, 70, 90])
    assert geometry.prototype_angles(-np.ones((2, 1))).tolist() == [0, 0]


@pytest.mark.parametrize(("corpus", "where"), [("synthetic-icbhi", "cnn on synthetic-icbhi: "), ("icbhi", "cnn: ")])
def test_claims_measured_on_synthetic_recordings_name_them(corpus, where):
    table = answers(np.random.default_rng(7), 12).assign(backbone="cnn", corpus=corpus, aqs=0.5, event_id="a")
    table = table.assign(**{f"c{k}": np.where(table["predicted"] == k, 0.9, 0.1) for k in range(4)})
    verdicts = claims.judge("demo", table).set_index("claim")
    measured = verdicts.loc[["C1", "C6", "C7"], "here"]
    assert measured.str.startswith(where).all()
    assert (verdicts.drop(["C1", "C6", "C7"])["here"] == "-").all()
    assert verdicts.loc["C1", "paper"] == "+2.46 Score"
    assert verdicts.loc["C7", "paper"] == "-"  # the paper gives no number


def test_auroc_within_equal_length():
    """A score that only tells length orders everything, and nothing among events of equal length."""
    length = np.repeat([1.0, 2.0, 3.0, 4.0], 50)
    positive = np.random.default_rng(8).random(200) < np.repeat([0.9, 0.6, 0.4, 0.1], 50)
    assert evaluation.auroc(positive, -length) > 0.75
    assert evaluation.auroc_within(positive, -length, length, 4) == 0.5
    assert evaluation.auroc_within(positive, positive - length, length, 4) == 1
    assert evaluation.auroc_within(positive, positive, np.zeros(200)) == 1
    assert np.isnan(evaluation.auroc_within(np.ones(8, bool), np.arange(8), np.arange(8)))
