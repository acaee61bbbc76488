"""Solutions pass, stubs and usual mistakes are explained, and the exercise notebook is the lesson's."""

import ast
import json
import math
import subprocess
import sys

import build_notebooks
import jupytext
import pytest
import torch
from torch.nn import functional as F

from qlung import margins, paths
from qlung.book import lessons
from qlung.errors import ConfigError

EXERCISES = lessons.answers()

MISTAKES = [(name, i) for name, exercise in EXERCISES.items() for i in range(len(exercise.mistakes))]


def cells(tag):
    """Sources of the lesson's cells with a tag, in order."""
    book = jupytext.reads(build_notebooks.LESSON.read_text(encoding="utf-8"), fmt="py:percent")
    return [cell.source for cell in book.cells if tag in cell.metadata.get("tags", [])]


def defined(source):
    """The last name a cell defines."""
    scope = {"math": math, "torch": torch, "F": F, "margins": margins}
    exec(source, scope)
    node = ast.parse(source).body[-1]
    return scope[node.name if isinstance(node, ast.FunctionDef) else node.targets[0].id]


def test_there_is_a_solution_for_every_exercise():
    assert len(cells("solution")) == len(EXERCISES) >= 8


@pytest.mark.parametrize(("name", "solution"), list(zip(EXERCISES, cells("solution"), strict=True)))
def test_solutions_pass_and_stubs_get_the_hint(name, solution):
    right = lessons.check(name, defined(solution))
    assert right
    assert repr(right) == f"Right. {EXERCISES[name].why}"
    stub = lessons.check(name, defined(build_notebooks.stub(solution)))
    assert not stub
    assert repr(stub) == f"Not yet. The answer is still empty. {EXERCISES[name].hint}"


@pytest.mark.parametrize(("name", "i"), MISTAKES)
def test_each_mistake_gets_its_own_explanation(name, i):
    wrong, explanation = EXERCISES[name].mistakes[i]
    feedback = lessons.check(name, wrong)
    assert not feedback
    assert feedback.text == explanation
    assert [text for _, text in EXERCISES[name].mistakes].count(explanation) == 1


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("margin-4", lambda c, m, s: s * torch.cos(torch.acos(c) + m * math.pi / 180), "radians already"),
        ("margin-5", lambda c, y, m, s: s * torch.cos(torch.acos(c) + m), "on every class"),
        ("margin-5", lambda c, y, m, s: margins.angular_margin_logits(c, y, m, 1.0), "scale is missing"),
        ("margin-4", lambda c, m, s: s * torch.cos(torch.acos(c) - m), "sign is wrong"),
        ("margin-6", lambda c, m, s: torch.cos(torch.acos(c) + m).argmax(1), "margin at inference"),
        ("margin-8", lambda q, m, y, g, k: (1 - g) * k * q + g * m[y], "Gamma is swapped"),
        ("margin-9", lambda c, y, m, a, d, k: 0.0, "your answer 0."),
        ("margin-4", lambda c, m, s: 1 / 0, "ZeroDivisionError"),
        ("margin-4", lambda c, m: c, "TypeError"),
        ("margin-9", lambda c, y, m, a, d, k: margins.angular_margin_logits(c, y, m.rad2deg(), d), "were degrees"),
        ("margin-4", "an angle", "your answer an angle"),
        ("margin-3", 5.0, "correct answer 4.27, your answer 5"),
        ("margin-3", None, "The answer is still empty"),
    ],
)
def test_answers_as_a_learner_would_write_them(name, answer, word):
    feedback = lessons.check(name, answer)
    assert not feedback
    assert word in feedback.text


def test_values_are_accepted_as_well_as_functions():
    assert lessons.check("margin-3", 0.75 * math.log(297))
    assert lessons.check("margin-2", 1 / (1 + 3 * math.exp(-20 / 3)))
    assert lessons.check("margin-7", [0.1006, 0.1769, 0.3047, 0.3512])


def test_an_answer_that_writes_into_its_input_cannot_spoil_the_next():
    def careless(cosine, margin, scale):
        return cosine.acos_().add_(margin).cos_().mul_(scale)

    assert lessons.check("margin-4", careless)
    assert lessons.check("margin-4", careless)


def test_an_unknown_exercise_is_named():
    with pytest.raises(ConfigError, match="no exercise 'margin-99'"):
        lessons.check("margin-99", 0)


def test_stubs_keep_signature_and_docstring_only():
    source = 'def f(a, b=1):\n    """Say\n    this."""\n    return a + b\n\n\ndef g(x):\n    return x\n\n\nanswer = 42'
    functions = ['def f(a, b=1):\n    """Say\n    this."""\n    ...  # your code', "def g(x):\n    ...  # your code"]
    assert build_notebooks.stub(source) == "\n\n\n".join([*functions, "answer = ...  # your answer"])
    with pytest.raises(ConfigError, match="functions and assignments only"):
        build_notebooks.stub("print(1)")


def test_committed_exercises_are_the_lessons():
    for name, text in build_notebooks.exercises().items():
        committed = (paths.NOTEBOOKS / "exercises" / name).read_text(encoding="utf-8")
        assert committed == text, "run `make notebooks`"


def test_exercises_hold_no_solution_and_have_derived_ids():
    made = build_notebooks.exercises()
    assert made == build_notebooks.exercises()
    book = json.loads(made["03_exercises.ipynb"])
    ids = [cell["id"] for cell in book["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(len(i) == 8 for i in ids)
    script = jupytext.reads(made["03_exercises.py"], fmt="py:percent")
    assert [cell.source for cell in script.cells] == ["".join(cell["source"]) for cell in book["cells"]]
    for solution in cells("solution"):
        assert solution not in made["03_exercises.py"]


def test_the_exercise_notebook_runs_with_nothing_filled_in():
    """Every check answers with its hint; nothing stops."""
    script = (paths.NOTEBOOKS / "exercises" / "03_exercises.py").read_text(encoding="utf-8")
    lines = [line if not line.startswith("lessons.check") else f"print({line})" for line in script.splitlines()]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=paths.ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Not yet. The answer is still empty.") == len(EXERCISES)
