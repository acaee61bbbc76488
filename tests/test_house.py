"""The house: rooms import only from rooms above them, nothing runs in a circle, and it stays thin."""

import ast
import shutil
from pathlib import Path

import pytest

from qlung import cache, load_corpus
from qlung.training import Config, run_folder

HOME = Path(cache.__file__).parent
ROOMS = ["errors", "paths", "cache", "__init__", "corpora", "audio", "margins", "backbones", "evaluation", "quality",
         "training", "book"]  # fmt: skip
GROUND = ("errors", "paths", "cache", "__init__")  # one room of four files
MOST_LINES, MOST_CODE = 6684, 4009
FILES = sorted(path for path in HOME.rglob("*.py") if path.name != "__main__.py")  # the command, no room


def room_of(path: Path) -> str:
    return path.relative_to(HOME).parts[0].removesuffix(".py")


def imported(path: Path) -> set[Path]:
    """Files of the package that a file imports anywhere in it: functions and TYPE_CHECKING blocks count."""
    found, package = set(), ["qlung", *path.relative_to(HOME).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            names = [[*base, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        for name in (name for name in names if name[0] == "qlung"):
            at = HOME.joinpath(*name[1:])
            tried = (at.with_suffix(".py"), at / "__init__.py", at.parent.with_suffix(".py"), at.parent / "__init__.py")
            found |= {next(file for file in tried if file.is_file())}
    return found - {path}


def code_lines(text: str) -> int:
    """Lines that are not blank, not a comment and not in a docstring."""
    documented = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            documented |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and n not in documented for n, line in lines)


def test_the_rooms_are_these():
    entries = {path.name.removesuffix(".py") for path in HOME.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert entries - {"__pycache__", "__main__"} == set(ROOMS)
    assert len(ROOMS) <= 12


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HOME).as_posix())
def test_rooms_import_only_from_rooms_above(path):
    own = ROOMS.index(room_of(path))
    for other in imported(path):
        name = room_of(other)
        assert ROOMS.index(name) <= own or {name, ROOMS[own]} <= set(GROUND), f"{path.name} imports {other}"


def test_no_file_imports_itself_in_a_circle():
    ties = {path: imported(path) for path in FILES}
    while leaves := [path for path, others in ties.items() if not others & set(ties)]:
        for path in leaves:
            del ties[path]
    assert not ties, sorted(path.relative_to(HOME).as_posix() for path in ties)


def test_the_evaluation_room_needs_no_torch():
    for path in (HOME / "evaluation").glob("*.py"):
        assert not {"torch", "torchaudio"} & {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                         [alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
        }  # fmt: skip


def test_the_helper_is_thin():
    texts = [path.read_text(encoding="utf-8") for path in FILES]
    assert sum(len(text.splitlines()) for text in texts) <= MOST_LINES
    assert sum(map(code_lines, texts)) <= MOST_CODE


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in GROUND and room != "backbones"])
def test_a_room_says_what_it_is_for(room):
    text = ast.get_docstring(ast.parse((HOME / room / "__init__.py").read_text(encoding="utf-8")))
    assert "otebook" in text
    assert "Comes in" in text


@pytest.fixture
def copied_code(monkeypatch, tmp_path) -> Path:
    """A copy of the package that keys are made from, so that a test can edit it."""
    copy = shutil.copytree(HOME, tmp_path / "qlung", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "__file__", str(copy / "cache.py"))
    return copy


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in (*GROUND, "book")])
def test_a_finished_run_does_not_outlive_changed_code(room, copied_code, synthetic_root):
    """Editing any file of any room that a result depends on changes the key of a run."""
    corpus = load_corpus("synthetic", synthetic_root).select("train")
    key = run_folder("demo", Config(), corpus, {})
    files = [path for path in (copied_code / f"{room}.py", *(copied_code / room).rglob("*.*")) if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes() + b"\n")
        changed = run_folder("demo", Config(), corpus, {})
        assert changed != key, path
        key = changed
