"""The notebooks as committed: paired, current, short, seeded, checked; and the answers to a new user's mistakes."""

import ast
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import build_notebooks
import jupytext
import nbformat
import pandas as pd
import papermill
import pytest
import torch
import typer
from typer.testing import CliRunner

from qlung import paths
from qlung.book import cli, notebooks, reproduce
from qlung.corpora import Corpus
from qlung.errors import ConfigError, CorpusError, QlungError, TrainingError
from qlung.evaluation import claims
from qlung.training import METHODS, experiments, model, profiles

SOURCES = sorted(paths.NOTEBOOKS.glob("[0-9]*.py"))
BOOK = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def tags(cell) -> list:
    return cell.metadata.get("tags", [])


def test_the_book_is_complete():
    assert [path.stem[:2] for path in SOURCES] == [f"{n:02d}" for n in range(len(SOURCES))]
    assert len(SOURCES) == 10


@BOOK
def test_notebook_is_built_from_its_source(source):
    built = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    fresh = json.loads(nbformat.writes(build_notebooks.from_source(source)))
    bare = [{k: v for k, v in cell.items() if k not in ("outputs", "execution_count")} for cell in built["cells"]]
    want = [{k: v for k, v in cell.items() if k not in ("outputs", "execution_count")} for cell in fresh["cells"]]
    assert bare == want
    assert built["metadata"] == fresh["metadata"]


@BOOK
def test_outputs_are_complete(source):
    cells = [c for c in nbformat.read(source.with_suffix(".ipynb"), 4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr" or output.output_type == "error"]
    assert source.with_suffix(".ipynb").stat().st_size < 1_500_000


@BOOK
def test_notebook_keeps_the_books_form(source):
    cells = jupytext.read(source).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert all(len(cell.source.splitlines()) <= 20 for cell in code)
    first = cells[0].source
    assert re.match(r"# [A-Z]", first)
    for promise in ("**What you will get:**", "**Reproduces:**", "**Runtime:**"):
        assert promise in first
    known = papermill.inspect_notebook(source.with_suffix(".ipynb"))
    assert {"profile": '"demo"', "data": '""'}.items() <= {name: row["default"] for name, row in known.items()}.items()
    assert "torch.manual_seed(0)" in "".join(cell.source for cell in code)
    checks = [cell for cell in code if "check" in tags(cell)]
    assert checks
    assert all(any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(c.source))) for c in checks)
    assert any("figures.save(" in cell.source for cell in code)
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert text.index("## What we found") < text.index("## Try next")


@pytest.mark.parametrize(
    ("given", "message"),
    [({"profil": "demo"}, "no parameter 'profil': it takes profile, data"), ({"profile": 3}, "should be str, it is 3")],
)
def test_misspelt_and_ill_typed_parameters_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        notebooks.check_parameters(paths.NOTEBOOKS / "04_train.ipynb", given)


def test_unknown_profile_names_the_known_ones():
    with pytest.raises(ConfigError, match="unknown profile 'dem': choose from demo, sc, "):
        profiles.load_profile("dem")


def test_wrong_data_folders_are_answered(tmp_path):
    with pytest.raises(CorpusError, match="there is no folder"):
        profiles.open_corpora("sc", str(tmp_path / "nowhere"))
    with pytest.raises(CorpusError, match=r"no \.wav under"):
        profiles.open_corpora("sc", str(tmp_path))
    with pytest.raises(ConfigError, match=r"DATA=.* goes with PROFILE=sc"):
        profiles.open_corpora("demo", str(tmp_path))


def test_an_unwritable_place_is_named(synthetic_root, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").write_text("a file where a folder should be")
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("sys.argv", ["qlung", "reproduce"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert f"cannot use '{tmp_path / 'runs'}" in (answer := capsys.readouterr().err)
    assert "QLUNG_CACHE, QLUNG_RUNS and QLUNG_DATA name other folders" in answer


def test_the_command_line_answers_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["qlung", "reproduce", "--profile", "demoo"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    known = ", ".join(tomllib.loads(paths.EXPERIMENTS.read_text(encoding="utf-8"))["profiles"])
    answer = f"ConfigError: unknown profile 'demoo': choose from {known}; did you mean 'demo'?\n"
    assert capsys.readouterr().err == answer
    assert CliRunner().invoke(cli.app, ["--help"]).exit_code == 0


def test_an_unwritable_cache_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("QLUNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["qlung", "train"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "QLUNG_CACHE, QLUNG_RUNS and QLUNG_DATA name other folders" in capsys.readouterr().err


@pytest.mark.parametrize("python", ["no-such-python", "false"])
def test_another_python_is_refused_before_anything_is_installed(python, tmp_path):
    shutil.copy(paths.ROOT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    done = subprocess.run(["make", f"PYTHON={python}", "reproduce"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "needs Python 3.11" in done.stdout
    assert "make PYTHON=/path/to/python3.11 reproduce" in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_a_failing_notebook_is_kept_and_named(tmp_path):
    cells = [nbformat.v4.new_code_cell('profile: str = "demo"', metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell("1 / 0"))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "bad.ipynb")
    with pytest.raises(QlungError, match=r"bad\.ipynb stopped: ZeroDivisionError"):
        notebooks.run_notebook(tmp_path / "bad.ipynb", tmp_path / "out" / "bad.ipynb", {"profile": "demo"})
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bad.failed.ipynb"]


def test_everything_that_is_imported_is_declared():
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[\w-]+", row)[0].replace("-", "_") for row in project["dependencies"]}
    declared.add("dask_jobqueue")  # an extra, loaded when it is asked for
    imported = set()
    for path in (paths.ROOT / "qlung").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    imported -= set(sys.stdlib_module_names) | {"qlung"}
    assert {{"sklearn": "scikit_learn"}.get(name, name).lower() for name in imported} <= declared
    assert {"nbclient", "nbformat", "jupyter_client", "pydantic", "filelock"} <= declared


def test_environment_files_agree():
    locks = (paths.ROOT / "requirements.lock", paths.ROOT / "docs" / "requirements.lock")  # the second: the web site's
    lock = "\n".join(path.read_text(encoding="utf-8") for path in locks)
    lock = dict(re.findall(r"^([\w.-]+)==([\w.]+)", lock.lower(), re.M))
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["dependencies"] + [row for rows in project["optional-dependencies"].values() for row in rows]
    for row in declared:
        name, minimum = re.fullmatch(r"([\w-]+)>=([\d.]+)", row).groups()
        locked = [int(part) for part in re.findall(r"\d+", lock[name.replace("_", "-")])]
        assert locked >= [int(part) for part in minimum.split(".")], row
    conda = (paths.ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "-r requirements.lock" in conda
    assert "python=3.11" in conda
    assert project["requires-python"] == ">=3.11,<3.14"


PAGES = [path for where in (".", "data", "docs") for path in sorted((paths.ROOT / where).glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert re.match(r"https?://", target) or (page.parent / target).exists(), target


def test_commands_in_the_pages_exist():
    targets = set(re.findall(r"^([a-z]+):", (paths.ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    seen = []
    for line in re.findall(r"^    (.+)$", "\n".join(page.read_text(encoding="utf-8") for page in PAGES), re.M):
        words = shlex.split(line, comments=True) or [""]
        if words[0] == "make":
            assert words[1] in targets, line
        names = [word.rpartition("/")[2] for word in words]
        if "papermill" in names:
            given = {name for flag, name in itertools.pairwise(words) if flag == "-p"}
            assert given <= set(papermill.inspect_notebook(paths.ROOT / words[names.index("papermill") + 1])), line
        elif "qlung" in names[:-1]:
            command, (name, *rest) = typer.main.get_command(cli.app), words[names.index("qlung") + 1 :]
            while name in getattr(command, "commands", {}):
                command, (name, *rest) = command.commands[name], [*rest, ""]
            command.make_context(line, [word for word in (name, *rest) if word])  # parses, and raises on what is wrong
            seen.append(command.name)
    assert {"sweep", "train", "check", "fetch", "verify"} <= set(seen)


def test_every_profile_can_be_configured():
    for name in tomllib.loads(paths.EXPERIMENTS.read_text(encoding="utf-8"))["profiles"]:
        configs = profiles.load_profile(name).configs()
        assert len(set(configs)) == len(configs) > 0


def test_variants_are_named_by_what_they_change():
    variants = [{"method": ["ce", "qlung"], "lam": [0, 1]}, {"method": "qlung", "quality": "inverted"}]
    settings = {"methods": ["ce"], "seeds": [0, 1], "lr": 1e-3, "variants": variants}
    rows = profiles.Profile("mine", ["icbhi"], {"cnn": settings}).rows()
    assert [label for label, _ in rows[::2]] == [
        "ce", "ce lam=0", "ce lam=1", "qlung lam=0", "qlung lam=1", "qlung quality=inverted"
    ]  # fmt: skip
    assert [config.seed for _, config in rows] == [0, 1] * 6
    mine = profiles.Profile("mine", ["icbhi"], {"cnn": settings})
    assert mine.rows(method="ce") == rows[:6]  # a method with its variants, ...
    assert mine.rows(method="ce lam=1", seed=1) == [rows[5]]  # ... or one row by its label
    assert rows[6][1].lam == 0
    assert all(config.lr == 1e-3 for _, config in rows)
    settings["variants"] = [{"method": "qlung", "lamda": 1}]
    with pytest.raises(ConfigError, match=r"'qlung lamda=1': unknown setting 'lamda': .*did you mean 'lam'"):
        profiles.Profile("mine", ["icbhi"], {"cnn": settings}).rows()
    with pytest.raises(ConfigError, match="unknown split 'mine': choose from official"):
        profiles.Profile("mine", ["icbhi"], {}, split="mine")


@pytest.mark.parametrize("line", ['split = "folds"', 'train_on = "synthetic-sprsound"'])
def test_profiles_divide_the_corpora_as_they_say(line, synthetic_root, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "EXPERIMENTS", tmp_path / "experiments.toml")
    paths.EXPERIMENTS.write_text(SMALL.replace("\n[profiles.demo.b", f"\n{line}\n[profiles.demo.b"))
    parts = profiles.parts("demo")
    icbhi, sprsound = profiles.open_corpora("demo").values()
    for train, tests in parts:
        for test in tests.values():
            assert not set(train.recordings["patient_id"]) & set(test.recordings["patient_id"])
    if "folds" in line:
        tested = [name for _, tests in parts for name in tests["synthetic-icbhi"].events["event_id"]]
        assert sorted(tested) == sorted(icbhi.events["event_id"])
        assert all(set(tests) == {"synthetic-icbhi"} for _, tests in parts)
    else:
        ((train, tests),) = parts
        assert train.name == "synthetic-sprsound"
        assert tests["synthetic-sprsound"].fingerprint() == sprsound.select("test").fingerprint()


def test_settings_are_chosen_without_opening_a_test_split(real_root, monkeypatch):
    """Profile tune: no event of it is in a test split of any corpus, and every training event is tested twice."""
    whole = profiles.open_corpora("tune", str(real_root))
    events = pd.concat([corpus.events for corpus in whole.values()])
    of_test = set(events[events["split"].str.startswith("test")]["event_id"])
    assert of_test
    opened, select = [], Corpus.select

    def noted(self, split):
        opened.append((self.fingerprint(), split))
        return select(self, split)

    monkeypatch.setattr(Corpus, "select", noted)
    parts = profiles.parts("tune", str(real_root))
    given = {corpus.fingerprint() for corpus in whole.values()}
    assert {split for corpus, split in opened if corpus in given} == {"train", "dev"}
    tested = {name: [] for name in ("patients", "devices", "kauh")}
    for train, tests in parts:
        for name, test in (("train", train), *tests.items()):
            assert not of_test & set(test.events["event_id"])
            if name != "train":
                tested[name] += list(test.events["event_id"])
    training = sorted(whole["icbhi"].events.query("split == 'train'")["event_id"])
    assert sorted(tested["patients"]) == sorted(tested["devices"]) == training
    assert len(set(tested["kauh"])) * 3 == len(tested["kauh"])
    for train, tests in parts:
        (own,) = (test for test in tests.values() if test.name == train.name)
        assert not set(train.recordings["patient_id"]) & set(own.recordings["patient_id"])


def test_claims_name_known_methods_and_profiles():
    profiles = tomllib.loads(paths.EXPERIMENTS.read_text(encoding="utf-8"))["profiles"]
    rows = claims.load()
    assert [row["id"] for row in rows] == [f"C{n}" for n in range(1, 8)] + ["L1", "L2", "L3"]
    for row in rows:
        assert set(row["judged_on"]) <= set(profiles)
        assert {row.get("better", "ce"), row.get("than", "ce")} <= set(METHODS)
        assert ("better" in row) == bool(row.get("confirmed_if")) == bool(row.get("contradicted_if"))


SMALL = """
[profiles.demo]
corpora = ["synthetic-icbhi", "synthetic-sprsound"]
[profiles.demo.backbones.cnn]
methods = ["ce", "qlung"]
seeds = [0, 1]
epochs = 1
batch_size = 32
lr = 1e-3
"""


@pytest.fixture
def small_book(tmp_path, monkeypatch, synthetic_root):
    """A book of one short notebook on a profile of four short runs."""
    (tmp_path / "experiments.toml").write_text(SMALL)
    cells = [nbformat.v4.new_code_cell('profile: str = "demo"\ndata: str = ""', metadata={"tags": ["parameters"]})]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "notebooks" / "00_one.ipynb")
    (tmp_path / "notebooks" / "00_one.py").touch()
    monkeypatch.setattr(paths, "EXPERIMENTS", tmp_path / "experiments.toml")
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path / "runs"))
    return tmp_path


def test_reproduce_writes_a_results_page_and_reuses_what_has_not_changed(small_book, capsys):
    assert reproduce.reproduce("demo")[0]["what"].tolist() == ["ran", "ran"]
    home = small_book / "runs" / "demo"
    page, runs = (home / "results.md").read_text(encoding="utf-8"), pd.read_csv(home / "runs.csv")
    assert len(runs) == 2 * 2 * 2  # corpora, methods, seeds
    assert all((home / folder / "run.json").is_file() for folder in runs["folder"])
    assert all((home / linked).is_file() for linked in re.findall(r"\]\(([^)]+)\)", page))
    assert "not testable here: needs PROFILE=paper" in page
    assert reproduce.reproduce("demo")[0]["what"].tolist() == ["reused", "reused"]
    notebook = small_book / "notebooks" / "00_one.ipynb"
    text = notebook.read_text(encoding="utf-8")
    notebook.write_text(text.replace('data: str = \\"\\"', 'data: str = \\"\\"  # changed'), encoding="utf-8")
    assert reproduce.reproduce("demo")[0]["what"].tolist() == ["reused", "ran"]
    assert "100 %" in capsys.readouterr().out  # not a terminal: plain lines


def test_check_never_trains_and_names_the_command(small_book):
    with pytest.raises(TrainingError, match=r"4 of 4 runs .* are not trained .*`qlung train --profile demo`"):
        CliRunner().invoke(cli.app, ["check"], catch_exceptions=False)
    assert not list((small_book / "runs").rglob("run.json"))


def test_runs_in_processes_are_those_of_one_thread(small_book):
    """Several at once or one after the other: the same bits, and a failing run stops with its own sentence."""
    at_once = reproduce.train_all("demo", seed=0)
    for path in small_book.glob("runs/demo/*/*/run.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["threads"] == 1
        path.unlink()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = experiments.train_all("demo", seed=0)
    finally:
        torch.set_num_threads(threads)
    pd.testing.assert_frame_equal(at_once, alone)
    table = small_book / "experiments.toml"
    table.write_text(table.read_text(encoding="utf-8").replace("lr = 1e-3", "lr = 1e30"), encoding="utf-8")
    with pytest.raises(TrainingError, match="diverged in epoch 1"):
        reproduce.train_all("demo", method="ce", seed=1)


def test_a_notebook_is_the_same_whoever_saves_it():
    """Two prints of a slow kernel, times, a machine's names and addresses: a reader sees none of them."""
    new, stream = nbformat.v4, lambda text: nbformat.v4.new_output("stream", name="stdout", text=text)
    shown = new.new_output("execute_result", {"text/plain": "<f at 0x7f00deadbeef>"}, execution_count=9)
    cells = [new.new_code_cell("print(1)\nprint(2)", execution_count=7, outputs=[stream("1\n"), stream("2\n")]),
             new.new_code_cell("f", execution_count=9, outputs=[shown], metadata={"tags": ["check"]})]  # fmt: skip
    cells[0].metadata = {"execution": {"iopub.status.busy": "2026-01-01"}, "jupyter": {"source_hidden": True}}
    saved = new.new_notebook(cells=cells, metadata={"language_info": {"name": "python", "version": "3.11.7"}})
    book = notebooks.normalise(saved)
    assert book.metadata == notebooks.METADATA
    assert [cell.execution_count for cell in book.cells] == [1, 2]
    assert book.cells[0].outputs == [stream("1\n2\n")]
    assert dict(book.cells[0].metadata) == {"jupyter": {"source_hidden": True}}
    assert book.cells[1].outputs[0]["data"]["text/plain"] == "<f at 0x0>"
    assert notebooks.normalise(book) == book


def test_train_from_the_command_line_prints_scores(small_book):
    done = CliRunner().invoke(cli.app, ["train", "--method", "ce"])
    assert done.exit_code == 0
    assert "2 runs, mean" in done.output
    assert "always normal" in done.output
    assert "1 runs, mean" in CliRunner().invoke(cli.app, ["train", "--method", "ce", "--seed", "1"]).output


def test_finished_models_can_be_loaded_and_predict(small_book):
    predictions = experiments.train_all("demo")
    models = experiments.load_models("demo", predictions, "cnn")
    assert list(models) == [("ce", 0), ("ce", 1), ("qlung", 0), ("qlung", 1)]
    icbhi = profiles.open_corpora("demo")["synthetic-icbhi"].select("test")
    for (method, seed), network in models.items():
        assert not network.training
        run = predictions[(predictions["method"] == method) & (predictions["seed"] == seed)]
        own = run[run["corpus"] == "synthetic-icbhi"].reset_index(drop=True)
        found = model.predict(network, icbhi)  # in another memory layout than in training: equal but for rounding
        pd.testing.assert_frame_equal(found, own[[*found]], rtol=0, atol=1e-5)
