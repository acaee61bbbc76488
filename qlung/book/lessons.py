"""Check answers to the exercises, saying why, and make the exercise notebook from the lesson's own cells."""

import ast
import copy
import functools
import inspect
import runpy
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
import torch
from torch import Tensor

from .. import paths
from ..errors import ConfigError
from . import notebooks

LESSON = paths.NOTEBOOKS / "03_learn_angular_margins.py"
ANSWERS = paths.NOTEBOOKS / "exercises" / "answers.py"


@functools.cache
def answers() -> dict:
    """The exercise bank beside the lesson: reference answers, usual mistakes and their explanations, by name."""
    return runpy.run_path(str(ANSWERS))["EXERCISES"]


@dataclass(frozen=True, repr=False)
class Feedback:
    """Whether an answer is right, and why; true in a condition if it is."""

    right: bool
    text: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return f"{'Right.' if self.right else 'Not yet.'} {self.text}"


def check(name: str, answer) -> Feedback:
    """Say whether an answer is right, and why.

    Parameters
    ----------
    name : str
        "margin-1" to "margin-10".
    answer : callable or value
        The function asked for, or its value on the first of the exercise's inputs.

    Returns
    -------
    feedback : Feedback
        Prints as a sentence; true if right.

    Raises
    ------
    ConfigError
        If there is no such exercise.

    Examples
    --------
    >>> check("margin-3", 4.27)
    Right. Four classes need no more than a scale of 4.3: larger ones, such as 37, change the gradient, not the peak.
    """
    bank = answers()
    if name not in bank:
        raise ConfigError(f"there is no exercise '{name}': choose from {', '.join(bank)}")
    exercise = bank[name]
    cases = exercise.cases if callable(answer) else exercise.cases[:1]
    try:
        given = [answer(*copy.deepcopy(case)) if callable(answer) else answer for case in cases]
    except Exception as error:  # whatever a learner's function raises is an answer to explain, not a failure of ours
        return Feedback(False, f"Your function stopped with {type(error).__name__}: {error}. {exercise.hint}")
    if any(value is None or value is ... for value in given):
        return Feedback(False, f"The answer is still empty. {exercise.hint}")
    wanted = [exercise.reference(*case) for case in cases]
    if all(map(_same, given, wanted)):
        return Feedback(True, exercise.why)
    for wrong, explanation in exercise.mistakes:
        if all(_same(value, wrong(*case)) for value, case in zip(given, cases, strict=True)):
            return Feedback(False, explanation)
    at = next(i for i, value in enumerate(given) if not _same(value, wanted[i]))
    names = inspect.signature(exercise.reference).parameters
    inputs = ", ".join(f"{name}={_show(value)}" for name, value in zip(names, cases[at], strict=False))
    compared = f"correct answer {_show(wanted[at])}, your answer {_show(given[at])}"
    return Feedback(False, f"{f'For {inputs}: ' if inputs else ''}{compared}. {exercise.hint}")


def _same(given, wanted) -> bool:
    try:
        given = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return False
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    return given.shape == wanted.shape and torch.allclose(given, wanted, rtol=2e-3, atol=1e-5)


def _show(value) -> str:
    if isinstance(value, Tensor) and value.numel() <= 12:
        value = value.tolist()
    elif isinstance(value, Tensor):
        return f"[a tensor of shape {tuple(value.shape)}]"
    if isinstance(value, list):
        return f"[{', '.join(map(_show, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
    """The exercise notebook of a lesson as {file name: text}, .ipynb and .py; the same bytes every time.

    Cells tagged "exercise" are carried over; those also tagged "solution" become stubs.
    """
    text = lesson.read_text(encoding="utf-8")
    stem = f"{lesson.stem.split('_')[0]}_exercises"
    intro = (
        f"# Practise: {lesson.stem.split('_', 1)[1].replace('_', ' ')}\n\n"
        "Replace each `...`, run the cell below it and read what it says.\n"
        f"Work in your own copy, `notebooks/exercises/mine/{stem}.ipynb`: `make lab` makes it, nothing overwrites it.\n"
        f"Worked answers are in `{lesson.stem}.ipynb`, from which this notebook is made."
    )
    cells = [nbformat.v4.new_markdown_cell(intro)]
    for cell in jupytext.reads(text, fmt="py:percent").cells:
        tags = cell.metadata.get("tags", [])
        if "exercise" in tags:
            make = nbformat.v4.new_markdown_cell if cell.cell_type == "markdown" else nbformat.v4.new_code_cell
            cells.append(make(stub(cell.source) if "solution" in tags else cell.source))
    imports = next(cell for cell in cells if cell.cell_type == "code")
    imports.source = f"# ruff: noqa: F401 (your answers use them, the stubs do not)\n{imports.source}"
    book = notebooks.new_notebook(cells, stem)
    as_in_lab = jupytext.config.load_jupytext_config(str(lesson))
    script = jupytext.writes(book, fmt="py:percent", config=as_in_lab)
    return {f"{stem}.ipynb": nbformat.writes(book) + "\n", f"{stem}.py": script}


def write_exercises(lesson: Path = LESSON) -> None:
    """Write the exercise notebook beside the lesson, in exercises/."""
    for name, text in exercises(lesson).items():
        target = lesson.parent / "exercises" / name
        paths.write_atomically(target, lambda part, text=text: part.write_text(text, encoding="utf-8"))
