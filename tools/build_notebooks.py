"""Build what is committed of the notebooks from their sources: .ipynb with outputs, and the exercises. For maintainers.

    python tools/build_notebooks.py             # every notebook, and the exercises: `make notebooks`
    python tools/build_notebooks.py NAME ...    # some notebooks, such as 03_learn_angular_margins, and the exercises

The exercise notebook is made of the lesson's own cells: those tagged "exercise" are carried over, and those that are
also tagged "solution" lose their answers.
"""

import ast
import functools
import hashlib
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

from qlung import paths
from qlung.book import engine, notebooks
from qlung.errors import ConfigError, QlungError

LESSON = paths.NOTEBOOKS / "03_learn_angular_margins.py"


def new_notebook(cells: list, name: str) -> nbformat.NotebookNode:
    """A notebook of the book; cell ids are derived from its name, so that a rebuild has the same bytes."""
    for index, cell in enumerate(cells):
        cell["id"] = hashlib.sha256(f"{name} {index}".encode()).hexdigest()[:8]
    return nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA)


def from_source(source: Path) -> nbformat.NotebookNode:
    """The notebook of a py:percent file, without outputs."""
    return notebooks.normalise(new_notebook(jupytext.read(source).cells, source.stem))


def build_one(source: Path) -> Path:
    """Execute a notebook's source on the demo profile and write the .ipynb beside it."""
    notebook = from_source(source)
    settings = {"timeout": 900, "record_timing": False, "store_widget_state": False}
    NotebookClient(notebook, **settings, **notebooks.RUNNING).execute()
    text = nbformat.writes(notebooks.normalise(notebook)) + "\n"  # as JupyterLab writes it
    return paths.write_atomically(source.with_suffix(".ipynb"), lambda part: part.write_text(text, encoding="utf-8"))


def build(names: list[str], progress) -> list[Path]:
    """Execute the source of every notebook, or of those named, as many at once as there are cores, and write .ipynb."""
    sources = {path.stem: path for path in sorted(paths.NOTEBOOKS.glob("[0-9]*.py"))}
    if unknown := set(names) - set(sources):
        raise ConfigError(f"no notebook is called {', '.join(sorted(unknown))}: choose from {', '.join(sources)}")
    tasks = {name: functools.partial(build_one, sources[name]) for name in names or sources}
    with engine.connect(len(tasks)) as client:
        return [engine.result(name, future) for name, future in engine.run(client, tasks, progress)]


def stub(source: str) -> str:
    """A solution cell with its answers taken out: signatures and docstrings stay, bodies and values become ``...``."""
    lines, chunks = source.splitlines(), []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node) is not None
            last = node.body[0].end_lineno if documented else node.body[0].lineno - 1
            chunks.append("\n".join([*lines[node.lineno - 1 : last], "    ...  # your code"]))
        elif isinstance(node, ast.Assign):
            chunks.append(f"{ast.unparse(node.targets[0])} = ...  # your answer")
        else:
            raise ConfigError(f"a solution cell holds functions and assignments only, not: {ast.unparse(node)}")
    return "\n\n\n".join(chunks)


def exercises(lesson: Path = LESSON) -> dict[str, str]:
    """The exercise notebook of a lesson as {file name: text}, .ipynb and .py; the same bytes every time."""
    stem = f"{lesson.stem.split('_')[0]}_exercises"
    intro = (
        f"# Practise: {lesson.stem.split('_', 1)[1].replace('_', ' ')}\n\n"
        "Replace each `...`, run the cell below it and read what it says.\n"
        f"Work in your own copy, `notebooks/exercises/mine/{stem}.ipynb`: `make lab` makes it, nothing overwrites it.\n"
        f"Worked answers are in `{lesson.stem}.ipynb`, from which this notebook is made."
    )
    cells = [nbformat.v4.new_markdown_cell(intro)]
    for cell in jupytext.read(lesson).cells:
        tags = cell.metadata.get("tags", [])
        if "exercise" in tags:
            make = nbformat.v4.new_markdown_cell if cell.cell_type == "markdown" else nbformat.v4.new_code_cell
            cells.append(make(stub(cell.source) if "solution" in tags else cell.source))
    imports = next(cell for cell in cells if cell.cell_type == "code")
    imports.source = f"# ruff: noqa: F401 (your answers use them, the stubs do not)\n{imports.source}"
    book = new_notebook(cells, stem)
    as_in_lab = jupytext.config.load_jupytext_config(str(lesson))
    script = jupytext.writes(book, fmt="py:percent", config=as_in_lab)
    return {f"{stem}.ipynb": nbformat.writes(book) + "\n", f"{stem}.py": script}


def write_exercises(lesson: Path = LESSON) -> None:
    """Write the exercise notebook beside the lesson, in exercises/."""
    for name, text in exercises(lesson).items():
        target = lesson.parent / "exercises" / name
        paths.write_atomically(target, lambda part, text=text: part.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    write_exercises()
    try:
        with notebooks.progress_bar("notebooks") as progress:
            built = build(sys.argv[1:], progress)
    except QlungError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(f"built {', '.join(sorted(path.name for path in built))}")
