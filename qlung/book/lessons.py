"""Check answers to the exercises of notebook 03, and explain the usual mistakes."""

import copy
import functools
import inspect
import runpy
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import paths
from ..errors import ConfigError

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
