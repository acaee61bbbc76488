"""Intervals and verdicts on predictions whose answer is known."""

import re
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import publish_evidence
import pytest
from PIL import Image
from typer.testing import CliRunner

from qlung import backbones, evaluation, paths
from qlung.book import cli, figures, reproduce, results
from qlung.corpora import CLASSES
from qlung.errors import ConfigError, TrainingError, WeightsError
from qlung.evaluation import claims, geometry
from qlung.training import experiments, fit, profiles


def made_up(right: dict, patients: int = 30, seeds: int = 3, corpus: str = "icbhi") -> pd.DataFrame:
    """Eight clips per patient, two per class; ``right`` is each method's chance of a correct answer."""
    rows, rng = [], np.random.default_rng(0)
    for method, chance in right.items():
        for seed in range(seeds):
            label = np.tile([0, 0, 1, 1, 2, 2, 3, 3], patients)
            hit = rng.random(len(label)) < chance
            table = pd.DataFrame({"label": label, "predicted": np.where(hit, label, (label + 1) % 4)})
            ids = np.repeat(np.arange(patients), 8)
            table = table.assign(patient_id=ids.astype(str), event_id=np.arange(len(label)).astype(str), aqs=0.5)
            cosines = {f"c{k}": np.where(table["predicted"] == k, 0.9, 0.1) for k in range(4)}
            rows.append(table.assign(method=method, seed=seed, backbone="cnn", corpus=corpus, **cosines))
    return pd.concat(rows, ignore_index=True)


def test_bootstrap_measures_the_mean_score_and_its_spread():
    table = made_up({"ce": 0.6, "qlung": 0.6})
    draws = evaluation.bootstrap(table)
    scores = evaluation.score_table(table, ["method", "seed"])
    assert draws.iloc[0].to_dict() == pytest.approx(scores.groupby("method")["Score"].mean().to_dict())
    binomial = 100 * np.sqrt(0.24 * (1 / 60 + 1 / 180) / 4)  # one seed's Score: mean of two proportions
    assert 0.3 * binomial < draws["ce"].iloc[1:].std() < 2 * binomial


def test_a_real_difference_excludes_zero_and_none_contains_it():
    clear = evaluation.difference(made_up({"ce": 0.5, "qlung": 0.8}), "qlung", "ce")
    assert clear["low"] > 0
    assert clear["low"] < clear["difference"] < clear["high"]
    none = evaluation.difference(made_up({"ce": 0.6, "qlung": 0.6}), "qlung", "ce")
    assert none["low"] < 0 < none["high"]
    same = made_up({"ce": 0.6})
    both = pd.concat([same, same.assign(method="qlung")])
    found = evaluation.difference(both, "qlung", "ce")
    assert [found[name] for name in ("difference", "low", "high", "p")] == pytest.approx([0, 0, 0, 1], abs=1e-9)


def test_intervals_over_patients_are_wider_when_patients_differ():
    table = made_up({"ce": 0.6}, seeds=1)
    odd, wrong = table["patient_id"].astype(int) % 2, (table["label"] + 1) % 4
    whole = table.assign(predicted=np.where(odd, table["label"], wrong))
    assert evaluation.bootstrap(whole).std()["ce"] > 1.5 * evaluation.bootstrap(table).std()["ce"]


def test_unequal_seeds_are_refused():
    table = made_up({"ce": 0.6, "qlung": 0.6})
    with pytest.raises(ConfigError, match="the same seeds only"):
        evaluation.bootstrap(table[(table["method"] == "ce") | (table["seed"] == 0)])


def test_separation_is_the_margin_between_angles():
    cosines = pd.DataFrame(np.cos(np.radians([[30, 60, 90, 120], [80, 70, 50, 90]])), columns=["c0", "c1", "c2", "c3"])
    assert geometry.separation(cosines.assign(label=[0, 1])).tolist() == pytest.approx([30, -20])


def test_floors():
    truth = [0, 0, 1, 2, 2, 3]
    found = {name: evaluation.icbhi_score(truth, k) for name, k in evaluation.trivial_baselines(truth).items()}
    assert found == {"always normal": (100, 0, 50), "always wheeze": (0, 50, 25)}


@pytest.mark.parametrize(
    ("low", "high", "within", "effect", "what"),
    [(0.1, 3, 2.6, 2.46, "supported"), (-3, -0.1, 2.6, 2.46, "contradicted"), (-1, 1, 0.9, 2.46, "negligible"),
     (-2, 1, 1.6, 2.46, "undecided"), (0.1, 0.5, 0.45, 2.46, "negligible"), (0.1, 0.5, 0.45, np.inf, "supported")],
)  # fmt: skip
def test_what_an_interval_shows_about_a_mechanism(low, high, within, effect, what):
    assert claims.shows({"low": low, "high": high, "within": within}, effect) == what


def test_holm_is_over_the_comparisons_of_claims_alone():
    home = made_up({"ce": 0.5, "qlung": 0.62, "arcface": 0.5})
    table = pd.concat([home, made_up({"ce": 0.6, "qlung": 0.6}, corpus="sprsound")])
    found = claims.primary(table)
    assert found["claim"].tolist() == ["C1", "C2", "C6", "C7"]  # ArcFace is in no claim
    assert found["p Holm"].tolist() == pytest.approx(evaluation.holm(found["p"]).tolist())
    assert (found["p Holm"] >= found["p"]).all()


def test_for_networks_trained_on_sprsound_the_corpora_change_places():
    there = made_up({"ce": 0.4, "qlung": 0.8}, corpus="sprsound")
    table = pd.concat([there, made_up({"ce": 0.6, "qlung": 0.6})])
    found = claims.primary(table, "sprsound").set_index("claim")
    assert found["corpus"].to_dict() == {"C1": "sprsound", "C2": "icbhi", "C6": "sprsound", "C7": "sprsound"}
    assert found["shows"][["C1", "C2"]].tolist() == ["supported", "undecided"]
    assert claims.primary(table).set_index("claim").loc["C2", "difference"] == found.loc["C1", "difference"]


@pytest.mark.parametrize(
    ("right", "verdict"),
    [({"ce": 0.4, "qlung": 0.8}, "confirmed"), ({"ce": 0.8, "qlung": 0.4}, "contradicted"),
     ({"ce": 0.6, "qlung": 0.6}, "not confirmed")],
)  # fmt: skip
def test_verdicts(right, verdict):
    judged = claims.judge("paper", made_up(right)).set_index("claim")["verdict"]
    assert judged["C1"] == verdict
    assert judged["C3"] == "not measured yet"  # nobody trained + quality margin here
    assert claims.judge("sc", made_up(right)).set_index("claim")["verdict"]["C1"].startswith("not testable here")


def test_two_backbones_must_agree_for_a_confirmation():
    table = pd.concat([made_up({"ce": 0.4, "qlung": 0.8}), made_up({"ce": 0.6, "qlung": 0.6}).assign(backbone="mn04")])
    assert claims.judge("paper", table).set_index("claim")["verdict"]["C1"] == "not confirmed"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """A copy of the committed pages and studies, its tables and pages written again; and what was written."""
    copy = tmp_path_factory.mktemp("evidence")
    shutil.copy(paths.ROOT / "README.md", copy)
    shutil.copytree(paths.ROOT / "figures", copy / "figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", copy)
        return copy, publish_evidence.rebuild()


def test_committed_tables_are_rebuilt_from_committed_predictions(rebuilt):
    copy, written = rebuilt
    assert {"README.md", "RESULTS.md", "contrasts.csv"} <= {path.name for path in written}
    for path in written:
        committed = paths.ROOT / path.relative_to(copy)
        assert path.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8"), path
    assert "| C1 |" in (copy / "README.md").read_text(encoding="utf-8")


def test_pages_are_short_and_link_to_what_is_there(rebuilt):
    _, written = rebuilt
    for page in (path for path in written if path.suffix == ".md"):
        text = page.read_text(encoding="utf-8")
        assert page.name == "README.md" or len(text.splitlines()) <= 200, page
        linked = re.findall(r"\]\(((?:figures|runs)/[^)]+|[^/)]+\.(?:png|csv|jsonl))\)", text)
        assert all((page.parent / one).is_file() for one in linked), page
        assert page.name == "README.md" or {"runs.jsonl", "contrasts.csv"} <= {one.rpartition("/")[2] for one in linked}


@pytest.mark.parametrize("study", [path.name for path in sorted(paths.ROOT.glob("figures/*"))])
def test_every_run_of_a_study_has_one_record(study):
    kept, records = results.evidence(study), publish_evidence.records(study)
    names = [record["run"] for record in records]
    assert names == sorted(set(kept["run"]))
    assert set(results.evidence(study, "runs")["run"]) == set(names)
    config = pd.DataFrame([record["config"] for record in records], index=names)[["backbone", "seed"]]
    first = kept.groupby("run")[["backbone", "seed"]].first()
    assert (config.loc[first.index] == first).all(axis=None)


@pytest.mark.parametrize("path", sorted(paths.ROOT.glob("figures/*/predictions.parquet")), ids=lambda p: p.parent.name)
def test_committed_predictions_name_no_recording(path):
    kept = pd.read_parquet(path)
    assert all(pd.api.types.is_integer_dtype(kept[name]) for name in ("patient_id", "event_id"))
    assert "recording_id" not in kept


def test_what_is_committed_keeps_the_order_of_clips_that_a_network_is_sure_of(tmp_path, monkeypatch):
    """Four digits of a probability would make ties of them, of 16 % of the clips with the first study's frozen CE."""
    table = made_up({"ce": 0.6}, patients=3, seeds=1).assign(run="a", device="Litt3200", listed_device="Litt3200",
                                                             seconds=1.0)  # fmt: skip
    abnormal = np.linspace(1e-12, 1e-9, len(table))
    table = table.assign(p0=1 - abnormal, p1=abnormal / 2, p2=abnormal / 4, p3=abnormal / 4)
    home = tmp_path / "figures" / "demo"
    home.mkdir(parents=True)
    publish_evidence.without_names(table).to_parquet(home / "predictions.parquet")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    kept = results.evidence("demo")
    assert kept[evaluation.PROBABILITIES].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-3)
    assert np.log(evaluation.odds(kept[evaluation.PROBABILITIES])) == pytest.approx(np.log(abnormal), abs=2e-3)


def test_committed_histories_are_those_of_the_committed_runs():
    for study in ("sc", "breadth"):
        curves, kept = results.evidence(study, "histories"), results.evidence(study)
        assert set(curves["run"]) == set(kept[~kept["method"].str.contains(" ")]["run"])
        epochs = {record["run"]: record["config"]["epochs"] for record in results.records(study)}
        assert all(last == epochs[run] for run, last in curves.groupby("run")["epoch"].max().items())
    drawn = pd.read_csv(paths.ROOT / "figures/sc/04-curves.csv")
    assert set(drawn["gamma"]) == {0.5}  # the methods themselves, no variant
    with pytest.raises(ConfigError, match="no histories of profile 'published' are committed"):
        results.evidence("published", "histories")


def test_committed_pictures_carry_their_numbers():
    pictures = sorted(paths.ROOT.glob("figures/*/*.png"))
    assert len(pictures) > 20
    for picture in pictures:
        assert picture.with_suffix(".svg").is_file(), picture
        assert len(pd.read_csv(picture.with_suffix(".csv"))), picture


def test_committed_confusions_are_those_of_the_committed_predictions():
    kept = results.evidence("sc").query("corpus == 'icbhi'")
    table = pd.read_csv(paths.ROOT / "figures/sc/06-confusion.csv")
    for (backbone, method), drawn in table.groupby(["backbone", "method"]):
        part = kept[(kept["backbone"] == backbone) & (kept["method"] == method)]
        counted = evaluation.confusion(part["label"], part["predicted"])
        assert np.array_equal(drawn[list(CLASSES)].to_numpy(), counted)


def test_claims_can_be_checked_without_data():
    done = CliRunner().invoke(cli.app, ["check", "--committed"])
    assert done.exit_code == 0
    assert done.output.count("not testable here") == 7
    assert "QLung beats cross-entropy" in done.output


def test_what_the_readme_says_in_words_is_so():
    """Its first screen, sentence by sentence, from the committed predictions."""
    words = " ".join((paths.ROOT / "README.md").read_text(encoding="utf-8").split())

    def in_readme(part, better="qlung", than="ce", statistic="Score"):
        found = evaluation.difference(part, better, than, statistic)
        text = "{difference:+.1f} ({low:+.1f} to {high:+.1f})".format(**found).replace("+-", "-")
        assert text in words, text
        return found

    on = dict(iter(results.evidence("sc").groupby("corpus")))
    gain = in_readme(on["icbhi"])
    assert gain["low"] < gain["difference"] < 0 < 2.46 < gain["high"]
    compared = {name: part.query("method in ('ce', 'qlung', 'angular')") for name, part in on.items()}
    in_readme(evaluation.at_line(compared["icbhi"], "cross-fitted"))
    assert in_readme(on["icbhi"].query("seed < 3"))["low"] < 0
    assert all(in_readme(on[name])["high"] < 0 for name in ("sprsound", "kauh"))
    assert in_readme(on["sprsound-intra"])["high"] > 0
    within = "AUROC within length"
    assert in_readme(compared["sprsound"], "qlung", "ce", within)["high"] < 0
    assert in_readme(compared["sprsound"], "angular", "ce", within)["high"] < 0
    assert f"{evaluation.bootstrap(compared['sprsound'], within)['ce'][0]:.1f} with CE" in words
    planned = [claims.primary(results.headline()), claims.primary(results.evidence("sprsound"), "sprsound")]
    left = [table[table["p Holm"] < 0.05] for table in planned]
    assert [(t["claim"] + " " + t["backbone"]).tolist() for t in left] == [["C6 mn04_frozen"], []]
    spread = evaluation.score_table(on["icbhi"], ["method", "seed"]).groupby("method")["Score"].std()
    assert spread.round().between(2, 5).all()
    assert in_readme(results.evidence("breadth").query("corpus == 'icbhi'"))["high"] < 2.46
    once = dict(iter(results.evidence("sc-cv").groupby("backbone")))
    assert all(in_readme(part)["low"] < 0 for part in once.values())
    score = evaluation.bootstrap(once["mn04"])["ce"]
    assert f"CE is ({score[0]:.1f})" in words
    assert evaluation.interval(score)[0] > 50
    in_readme(results.evidence("sc-unmasked").query("corpus == 'icbhi'"))
    shuffled = in_readme(on["icbhi"], "qlung quality=shuffled", "qlung")
    assert abs(shuffled["difference"]) < 0.1
    there = dict(iter(results.evidence("sprsound").groupby(["backbone", "corpus"])))
    assert all(in_readme(there[name, "sprsound"])["within"] < 2.46 / 2 for name in ("mn04", "mn04_frozen"))
    seeds = {name: there[name, "sprsound"]["seed"].nunique() for name in ("mn04", "mn04_frozen")}
    assert seeds == {"mn04": 5, "mn04_frozen": 10}
    assert in_readme(there["mn04_frozen", "sprsound"], "quality", "fixed")["within"] < 0.75 / 2
    assert in_readme(there["mn04_frozen", "sprsound"], "qlung", "class")["within"] < 1.45 / 2
    assert all(in_readme(there["mn04", name])["low"] < 0 for name in ("icbhi", "kauh"))
    ranking = results.evidence("tune", "ranking").query("backbone == 'mn04'")
    ranking["of"] = ranking["method"].str.split().str[0]
    moved = ranking.groupby("of")["mean"].max() - ranking.set_index("method")["mean"][["ce", "qlung"]]
    assert f"by {moved['ce']:.0f} points for CE and by {moved['qlung']:.0f} for QLung" in words
    patients = claims.primary(results.evidence("sc")).groupby("claim")["patients"].first()
    assert f"as {patients['C1']:.0f} of equal weight on ICBHI and as {patients['C2']:.0f} on SPRSound" in words
    scores = evaluation.bootstrap(on["icbhi"])
    assert (scores.iloc[1:].quantile(0.025) < 50).all()
    sizes = {name: f"{part['event_id'].nunique():,}" for name, part in on.items()}
    for name, what in (("icbhi", "clips"), ("sprsound", "clips"), ("kauh", "recordings")):
        assert f"{sizes[name]} {what}" in words
    for study in ("sc", "sprsound"):
        assert f"{sum(results.records(study)[0]['train_counts']):,} clips of" in words


def test_no_training_clip_of_a_committed_run_was_without_quality():
    """The ledger says of silence that nothing hangs on it here."""
    studies = [path.parent.name for path in paths.ROOT.glob("figures/*/runs.jsonl")]
    records = [record for study in studies for record in publish_evidence.records(study)]
    assert len(records) > 1000
    assert {record["missing_quality"] for record in records} == {0}


def test_figures_carry_their_origin(tmp_path, monkeypatch):
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path))
    table = pd.DataFrame({"difference": [1.0, 2.0], "low": [0, 1], "high": [2, 3], "paper": [1.5, np.nan],
                          "run": ["abc", "def"]})  # fmt: skip
    figures.use_style()
    fig, ax = plt.subplots()
    figures.intervals(ax, table, ["first", "second"], reference="paper")
    figures.save(fig, "05-origin", "demo", table)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    assert [len(drawn.get_offsets().compressed()) // 2 for drawn in ax.collections[1:]] == [2, 1]
    picture, drawn = (tmp_path / "demo" / "figures" / f"05-origin.{suffix}" for suffix in ("png", "svg"))
    origin = Image.open(picture).text
    assert re.fullmatch(r"commit \w+.*, notebook 05_ablate_margins, profile demo", origin["Source"])
    assert origin["Description"] == "runs abc def"
    assert origin["Source"] in drawn.read_text(encoding="utf-8")
    first = drawn.read_bytes()
    figures.save(fig, "05-origin", "demo", table)
    assert drawn.read_bytes() == first


def test_a_long_study_is_published_row_by_row(tmp_path, monkeypatch):
    """What was committed on another machine stays, and isn't trained again."""
    table = tmp_path / "experiments.toml"
    table.write_text(
        '[profiles.mine]\ncorpora = ["synthetic-icbhi"]\nsplit = "folds"\n[profiles.mine.backbones.cnn]\n'
        'methods = ["ce", "qlung"]\nseeds = [0]\nepochs = 1\nbatch_size = 32\n'
        'variants = [{ method = "ce", lr = 1e-2 }]\n'
    )
    for name, value in {"EXPERIMENTS": table, "ROOT": tmp_path}.items():
        monkeypatch.setattr(paths, name, value)
    monkeypatch.setattr(publish_evidence, "rebuild", list)
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path / "here"))
    with pytest.raises(TrainingError, match="no row of profile 'mine' is finished"):
        publish_evidence.publish("mine")
    assert results.committed("mine") == set()
    experiments.train_all("mine", method="ce")
    train, tests = profiles.parts("mine")[0]
    fit(profiles.load_profile("mine").configs(method="qlung")[0], train, tests, "mine")  # one fold of five is no row
    publish_evidence.publish("mine")
    first = results.evidence("mine")
    of_ce = [config for label, config in profiles.load_profile("mine").rows() if label in ("ce", "ce lr=0.01")]
    assert results.committed("mine") == set(of_ce)
    assert len(of_ce) == 2
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path / "there"))
    left = reproduce._unfinished("mine", "", results.committed("mine"))
    assert len(left) == 5
    assert all("qlung" in name for name in left)
    done = CliRunner().invoke(cli.app, ["train", "--profile", "mine", "--rest"])
    assert "2 rows are committed, the rest is in" in done.output, done.output
    publish_evidence.publish("mine")
    both = results.evidence("mine")
    assert set(both["method"]) == {"ce", "ce lr=0.01", "qlung"}
    pd.testing.assert_frame_equal(both[both["method"] != "qlung"].reset_index(drop=True), first)
    assert {record["run"] for record in publish_evidence.records("mine")} == set(both["run"])
    assert set(results.evidence("mine", "histories")["method"]) == {"ce", "qlung"}


def test_a_row_whose_settings_have_changed_is_trained_and_published_anew(tmp_path, monkeypatch):
    """Its name is the same: rows of two recipes must not stand side by side as one study."""
    table, study = tmp_path / "experiments.toml", '[profiles.mine]\ncorpora = ["synthetic-icbhi"]\nsplit = "folds"\n'
    study += '[profiles.mine.backbones.cnn]\nmethods = ["ce", "qlung"]\nseeds = [0]\nbatch_size = 32\nepochs = '
    for name, value in {"EXPERIMENTS": table, "ROOT": tmp_path}.items():
        monkeypatch.setattr(paths, name, value)
    monkeypatch.setattr(publish_evidence, "rebuild", list)
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path / "runs"))
    table.write_text(study + "1\n")
    experiments.train_all("mine")
    publish_evidence.publish("mine")
    assert reproduce._unfinished("mine", "", results.committed("mine")) == {}
    table.write_text(study + "2\n")
    assert len(reproduce._unfinished("mine", "", results.committed("mine"))) == 10
    experiments.train_all("mine", method="ce")
    publish_evidence.publish("mine")
    assert set(results.evidence("mine")["method"]) == {"ce"}
    assert {record["config"]["epochs"] for record in publish_evidence.records("mine")} == {2}


def test_what_is_stated_of_batch_norm_is_in_the_table():
    rows = results.evidence("tune", "ranking").query("backbone == 'mn04'").set_index("method")["difference"]
    least, most = sorted(rows[[f"{method} batch_norm=frozen" for method in ("ce", "qlung")]])
    stated = f"worth {least:.0f} to {most:.0f} points"
    assert stated in " ".join(paths.EXPERIMENTS.read_text(encoding="utf-8").replace("\n#", "").split())


def test_committed_rows_of_the_frozen_encoder_can_be_trained_again(real_root, tmp_path, monkeypatch):
    """On this processor, whichever it is: the mean Score of four rows, within the stated band."""
    try:
        backbones.mn04_weights()
    except WeightsError as error:
        pytest.skip(f"no mn04 weights: {error}")
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path))
    which = {"most": 4, "method": "ce"}
    found = results.retrained("breadth", str(real_root), **which)
    assert found["corpus"].tolist() == ["icbhi", "sprsound", "sprsound-intra"]
    assert found["rows"].tolist() == [4, 4, 4]
    assert found["agrees"].all(), found
    command = ["check", "--profile", "breadth", "--data", str(real_root), "--retrain", "4"]
    assert CliRunner().invoke(cli.app, [*command, "--method", "ce"]).exit_code == 0
    always_normal = results.evidence("breadth").assign(predicted=0)  # as if other networks had been committed
    monkeypatch.setattr(results, "evidence", lambda profile: always_normal)
    again = results.retrained("breadth", str(real_root), **which)
    assert again["Score committed"].tolist() == [50, 50, 50]
    assert not again["agrees"].any()
    assert CliRunner().invoke(cli.app, [*command, "--method", "ce"]).exit_code == 1
    with pytest.raises(ConfigError, match="'sc-cv' has folds, or no such row"):
        results.retrained("sc-cv", str(real_root))
