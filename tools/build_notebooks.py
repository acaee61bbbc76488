"""Build what is committed of the notebooks from their sources: .ipynb with outputs, and the exercises. For maintainers.

    python tools/build_notebooks.py             # every notebook, and the exercises: `make notebooks`
    python tools/build_notebooks.py NAME ...    # some notebooks, such as 03_learn_angular_margins, and the exercises

The exercise notebook is made of the exercise bank, notebooks/exercises/answers.py: its theory and questions, and its
worked answers without their bodies.
"""

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

from qlung import paths
from qlung.book import engine, lessons, notebooks
from qlung.errors import ConfigError, QlungError

EXERCISES = paths.NOTEBOOKS / "exercises" / "03_exercises.py"
INTRODUCTION = (
    "# Practise: angular margins and operating points",
    "Answer each exercise by hand, with a number, or in code, with a function; either one counts as solved. On the web "
    "site a number can be typed into the page. A number is right if it is correctly rounded to two or more significant "
    "digits, or to as many as the question asks for.",
    'The check says what is wrong. If that is not enough, `lessons.hint("margin-1", 1)` says which step is next, '
    '`lessons.hint("margin-1", 2)` gives the formula, and `lessons.answer("margin-1")` the worked answer.',
    "Work in your own copy, `notebooks/exercises/mine/03_exercises.ipynb`: `make lab` makes it, nothing overwrites it, "
    "and what you have solved is remembered beside it.",
)
IMPORTS = """# ruff: noqa: F401 (your answers use them, the stubs do not)
import math

import torch
from torch.nn import functional as F

from qlung import margins
from qlung.book import lessons

torch.set_num_threads(1)  # the tensors here are small"""


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


def stub(function) -> str:
    """A worked answer with its body taken out: signature and docstring stay."""
    source = inspect.getsource(function)
    node = ast.parse(source).body[0]
    return "\n".join([*source.splitlines()[: node.body[0].end_lineno], "    ...  # your code"])


def wrapped(*paragraphs: str) -> str:
    """Markdown of at most 98 columns; tables stay as they are."""
    parts = "\n\n".join(paragraphs).split("\n\n")
    fill = functools.partial(textwrap.fill, width=98, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join(part if part.startswith(("|", "#")) else fill(part) for part in parts)


def exercises() -> dict[str, str]:
    """The exercise notebook as {file name: text}, .ipynb and .py; the same bytes every time."""
    markdown, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [markdown(wrapped(*INTRODUCTION)), code(IMPORTS)]
    for name, exercise in lessons.bank()["EXERCISES"].items():
        unit = f" [{exercise.unit}]" if exercise.unit else ""
        cells += [
            markdown(wrapped(f"## {name}: {exercise.title}", exercise.theory, f"**By hand.** {exercise.question}")),
            code(f'lessons.check("{name}", ...)  # your number{unit} in place of the dots'),
            markdown(wrapped(f"**In code.** {exercise.task}")),
            code(stub(exercise.answer)),
            code(f'lessons.check("{name}", {exercise.answer.__name__})'),
        ]
    cells += [markdown("How many are solved, today and before:"), code("lessons.progress()")]
    book = new_notebook(cells, EXERCISES.stem)
    as_in_lab = jupytext.config.load_jupytext_config(str(EXERCISES))
    script = jupytext.writes(book, fmt="py:percent", config=as_in_lab)
    return {f"{EXERCISES.stem}.ipynb": nbformat.writes(book) + "\n", f"{EXERCISES.stem}.py": script}


def write_exercises() -> None:
    """Write the exercise notebook, both files."""
    for name, text in exercises().items():
        target = EXERCISES.parent / name
        paths.write_atomically(target, lambda part, text=text: part.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    write_exercises()
    try:
        with notebooks.progress_bar("notebooks") as progress:
            built = build(sys.argv[1:], progress)
    except QlungError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(f"built {', '.join(sorted(path.name for path in built))}")
