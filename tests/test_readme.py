"""README and glossary: the loss in somebody else's loop runs, and every file, name and term they point to exists."""

import ast
import re

import pandas as pd
import pytest
import torch

from qlung import paths

README = (paths.ROOT / "README.md").read_text(encoding="utf-8")
GLOSSARY = (paths.ROOT / "docs/glossary.md").read_text(encoding="utf-8")
ANCHORS = re.findall(r'<a id="([^"]+)"></a>', GLOSSARY)
TERMS = """cycle event clip recording patient device official-split sp se score aqs entropy rms margin quality-margin
class-margin prototype scale cosine-logits dfam cross-entropy in-distribution out-of-distribution severity degradation
trivial-baseline interval bootstrap crossed equivalence effective-number holm operating-point area auroc ece
calibration separation typicality ledger reading profile study run seed variant contrast""".split()


def names_in(tree: ast.AST) -> set[str]:
    """Names that a file or a class defines or imports."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
            inner = names_in(node) if isinstance(node, ast.ClassDef) else ()
            found |= {f"{node.name}.{name}" for name in inner}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def test_the_loss_trains_in_somebody_elses_loop():
    block = next(b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "QLungLoss" in b)
    start, end = re.split(r"^for epoch in range\(5\):$", block, flags=re.M)
    torch.manual_seed(0)
    space = {}
    exec(start, space)
    losses = []
    for _ in range(2):
        exec("for epoch in range(5):" + end, space)
        losses.append(space["loss"].item())
    assert losses[1] < losses[0]
    assert all(0 <= quality <= 1 for quality in space["aqs"])
    trained = (space["encoder"].weight, space["classifier"].prototypes)
    assert all(parameter.grad.abs().sum() > 0 for parameter in trained)
    assert space["predicted"].shape == space["target"].shape


@pytest.mark.parametrize("text", [README, GLOSSARY], ids=["README", "glossary"])
def test_files_and_names_exist(text):
    found = re.findall(r"`(qlung/[\w/]+\.py)(?:: ([\w.]+))?`", text)
    assert len(found) > 10
    for file, name in found:
        assert (paths.ROOT / file).is_file(), file
        tree = ast.parse((paths.ROOT / file).read_text(encoding="utf-8"))
        assert not name or name in names_in(tree), f"{file}: {name}"


def test_the_map_has_every_room_and_file():
    home = paths.ROOT / "qlung"
    table = README.partition("| room | what comes in")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    rooms = {name for row in rows for name in re.findall(r"`(\w+)", row[0])}
    assert rooms == {path.stem for path in home.glob("[a-z]*") if path.suffix == ".py" or any(path.glob("*.py"))}
    for room, _, files, _ in rows:
        if room.endswith("/`"):
            there = {path.stem for path in (home / room.strip("`/")).glob("[a-z]*.py")}
            assert set(files.split(", ")) == there, room


def test_the_glossary_has_every_term_once():
    assert len(ANCHORS) == len(set(ANCHORS))
    assert set(TERMS) <= set(ANCHORS)


def test_links_to_the_glossary_lead_to_a_term():
    pages = [*paths.ROOT.glob("*.md"), *paths.ROOT.glob("docs/*.md"), *paths.NOTEBOOKS.glob("**/*.py")]
    for page in pages:
        for anchor in re.findall(r"glossary\.md#([\w-]+)", page.read_text(encoding="utf-8")):
            assert anchor in ANCHORS, f"{page.name}: {anchor}"


def test_twenty_lines_of_pandas_give_the_table_on_the_first_screen():
    """No function of this package computes them: who doubts a number can repeat it."""
    tables = {"icbhi": "figures/sc/predictions.parquet", "sprsound": "figures/sprsound/predictions.parquet"}
    kept = pd.concat([pd.read_parquet(paths.ROOT / path).assign(trained=name) for name, path in tables.items()])
    kept = kept[kept["method"].isin(["ce", "qlung"]) & (kept["backbone"] == "mn04")]
    kept = kept[(kept["trained"] == "icbhi") & (kept["corpus"] != "sprsound-intra") | (kept["corpus"] == "sprsound")]
    kept["right"] = 100.0 * (kept["label"] == kept["predicted"])
    kept["side"] = (kept["label"] == 0).map({True: "Sp", False: "Se"})
    runs = kept.pivot_table("right", ["trained", "corpus", "method", "seed"], "side")
    runs["Score"] = (runs["Sp"] + runs["Se"]) / 2
    groups = runs.groupby(["trained", "corpus", "method"])
    mean, sd, seeds = groups.mean(), groups.std(), groups.size()
    for row in mean.index:
        names = [*row[:2], {"ce": "CE", "qlung": "QLung"}[row[2]]]
        cells = [f"{mean.loc[row, name]:.2f} ± {sd.loc[row, name]:.2f}" for name in ("Sp", "Se", "Score")]
        assert f"| {' | '.join([*names, *cells])} | {seeds[row]} |" in README
    assert len(mean) == 8
