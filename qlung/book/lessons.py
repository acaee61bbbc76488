"""Check answers to the exercises, by hand or in code, explain the usual mistakes, and count what is solved."""

import contextlib
import functools
import runpy

from .. import paths
from ..errors import ConfigError, choices

ANSWERS = paths.NOTEBOOKS / "exercises" / "answers.py"
SOLVED = ANSWERS.parent / "mine" / "solved"  # an empty file per solved exercise; git ignores it


@functools.cache
def bank() -> dict:
    """What the exercise bank beside the lesson defines: EXERCISES by name, REPLIES to any answer."""
    return runpy.run_path(str(ANSWERS))


def _exercise(name: str):
    exercises = bank()["EXERCISES"]
    if name not in exercises:
        raise ConfigError(f"there is no exercise '{name}': {choices(name, exercises)}")
    return exercises[name]


class Feedback(str):
    """Sentences for a reader; true in a condition if the answer is right."""

    right = False

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return str(self)


def check(name: str, answer) -> Feedback:
    """Say whether an answer is right, or what is wrong with it.

    Parameters
    ----------
    name : str
        "margin-1" to "margin-10", "operating-1".
    answer : callable or float
        The function asked for, or the number asked for. A number is right if it is correctly rounded
        to two or more significant digits, or to as many as the question asks for.

    Returns
    -------
    feedback : Feedback
        Prints as sentences; true if right. What is solved is kept in notebooks/exercises/mine/.

    Raises
    ------
    ConfigError
        If there is no such exercise.

    Examples
    --------
    >>> check("margin-3", 2.01)
    Not yet. That is the logarithm to base 10; the softmax uses e: take the natural logarithm.
    The next step: lessons.hint("margin-3", 1)
    """
    exercise = _exercise(name)
    if fault := exercise.fault(answer):
        return Feedback(f'Not yet. {fault}\nThe next step: lessons.hint("{name}", 1)')
    with contextlib.suppress(OSError):  # a right answer stays right where nothing can be written
        paths.write_atomically(SOLVED / name, lambda part: part.touch())
    feedback = Feedback(f"Right. {exercise.why} {progress()}")
    feedback.right = True
    return feedback


def hint(name: str, stage: int) -> Feedback:
    """Stage 1: which step; stage 2: the formula."""
    hints = _exercise(name).hints
    if stage not in (1, 2):
        raise ConfigError(f"there is no stage {stage!r}: 1 is the step, 2 the formula")
    more = ('hint("{}", 2)', 'answer("{}")')[stage - 1].format(name)
    return Feedback(f"{hints[stage - 1]}\nMore: lessons.{more}")


def answer(name: str):
    """The worked answer: a function; shown, it is its source and the number for the question by hand."""
    return _exercise(name)


def progress() -> Feedback:
    """How many exercises were solved, by hand or in code, since notebooks/exercises/mine/solved was last deleted."""
    names = bank()["EXERCISES"]
    return Feedback(f"{sum((SOLVED / name).is_file() for name in names)} of {len(names)} solved.")
