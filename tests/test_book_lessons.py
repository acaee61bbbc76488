"""Answers are checked rightly, usual mistakes are explained, and the exercise notebook is made of the bank."""

import functools
import inspect
import json
import math
import re
import subprocess
import sys

import build_notebooks
import jupytext
import nbformat
import pandas as pd
import pytest
import torch

from qlung import evaluation, margins, paths
from qlung.book import lessons
from qlung.errors import ConfigError

BANK = lessons.bank()
EXERCISES, REPLIES, is_rounded = BANK["EXERCISES"], BANK["REPLIES"], BANK["is_rounded"]
EACH = pytest.mark.parametrize("name", EXERCISES)
MISTAKES = [(name, i) for name, exercise in EXERCISES.items() for i in range(len(exercise.mistakes))]
LESSON = paths.NOTEBOOKS / "03_learn_angular_margins.py"


@pytest.fixture(autouse=True)
def own_count(tmp_path, monkeypatch):
    """Tests never touch what the reader has solved."""
    monkeypatch.setattr(lessons, "SOLVED", tmp_path / "mine" / "solved")


def significant(number: float, digits: int) -> float:
    return float(f"{number:.{digits - 1}e}")


# ---- numbers and functions -----------------------------------------------------------------------------------------


def test_there_are_exercises():
    assert [name for name in EXERCISES if name.startswith("margin-")] == [f"margin-{n}" for n in range(1, 11)]
    assert "operating-1" in EXERCISES


@EACH
def test_worked_answers_pass_and_empty_ones_are_named(name):
    exercise = EXERCISES[name]
    for answer in (exercise, exercise.answer, exercise.value(exercise)):
        right = lessons.check(name, answer)
        assert right
        assert repr(right) == f"Right. {exercise.why} 1 of {len(EXERCISES)} solved."
    scope = {}
    exec(build_notebooks.stub(exercise.answer), scope)
    for answer in (scope[exercise.answer.__name__], ..., None):
        empty = lessons.check(name, answer)
        assert not empty
        assert repr(empty) == f'Not yet. {REPLIES["empty"]}\nThe next step: lessons.hint("{name}", 1)'


@EACH
def test_a_number_is_right_if_it_is_correctly_rounded(name):
    """To the digits asked for or to more; one unit beside it, or cut off, it is wrong."""
    exercise = EXERCISES[name]
    right = exercise.value(exercise)
    for digits in range(exercise.digits, 9):
        assert lessons.check(name, significant(right, digits)), digits
    rounded = {significant(right, digits) for digits in range(exercise.digits, 5)}  # 0.140 is read as 0.14
    for digits in range(exercise.digits, 5):
        unit = 10.0 ** (math.floor(math.log10(abs(right))) + 1 - digits)
        for wrong in (significant(significant(right, digits) + step, digits) for step in (unit, -unit)):
            assert wrong in rounded or not lessons.check(name, wrong), wrong
        cut = significant(math.floor(right / unit + 1e-6) * unit, digits)
        if cut not in rounded:
            assert REPLIES["cut"] in lessons.check(name, cut)
    assert not lessons.check(name, math.nan)
    assert not lessons.check(name, [right])


@pytest.mark.parametrize(
    ("wanted", "digits", "right", "wrong"),
    [
        (4.6274972, 2, [4.6, 4.63, 4.627, 4.6275, 4.6274972], [5, 4.5, 4.7, 4.62, 4.64, 4.628, 4.626, 4.6281]),
        (0.8275061, 3, [0.828, 0.8275, 0.82751], [0.8, 0.83, 0.827, 0.829, 82.8]),
        (0.4978, 2, [0.5, 0.498], [0.49, 0.51, 0.497]),
        (20.0, 2, [20, 20.0], [19, 21, 20.6]),
        (-3.2706, 2, [-3.3, -3.27], [3.3, -3.2, -3.28]),
        (2.25, 2, [2.2, 2.3, 2.25], [2.1, 2.4]),
        (1, 2, [1], [0, 2, 1.1, 0.9]),
        (0.9996, 2, [1, 0.9996], [0.99, 1.1]),
        (0.0, 2, [0], [0.001, -1]),
    ],
)
def test_both_sides_of_the_tolerance(wanted, digits, right, wrong):
    assert [given for given in right if not is_rounded(given, wanted, digits)] == []
    assert [given for given in wrong if is_rounded(given, wanted, digits)] == []


@pytest.mark.parametrize(("name", "i"), MISTAKES)
def test_each_mistake_gets_its_own_explanation(name, i):
    exercise = EXERCISES[name]
    wrong, explanation = exercise.mistakes[i]
    feedback = lessons.check(name, wrong)
    assert not feedback
    assert feedback.startswith(f"Not yet. {explanation}\n")
    assert [text for _, text in exercise.mistakes].count(explanation) == 1


@EACH
def test_a_mistaken_number_is_named_however_it_is_rounded(name):
    """Rounded to two digits, too: no mistake lies so near that it passes as right or as another mistake."""
    page = EXERCISES[name].page()
    assert len(page["mistakes"]) >= 3
    first = {}
    for value, text in page["mistakes"]:
        for digits in (2, 3, 4, 7):
            rounded = significant(value, digits)
            assert first.setdefault(rounded, text) == text or value in first
            feedback = lessons.check(name, rounded)
            assert not feedback
            assert feedback.startswith(f"Not yet. {first[rounded]}"), (value, digits)
        first[value] = first.get(value, text)


def test_a_mistake_follows_the_numbers_of_its_exercise():
    """They are formulas: for other counts -t log n is recognised, too."""
    exercise = EXERCISES["margin-7"]
    counts = torch.tensor([90.0, 30.0, 10.0])
    other = exercise.__class__(**{**vars(exercise), "number": lambda f: f(counts, 0.4)[2], "cases": ((counts, 0.4),)})
    assert "divide the counts by their sum first" in other.fault(-0.4 * math.log(10))
    assert "in degrees" in other.fault(math.degrees(other.value(other)))
    assert not other.fault(other.value(other))


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("margin-4", lambda c, m, s: s * torch.cos(torch.acos(c) + m * math.pi / 180), "radians already"),
        ("margin-5", lambda c, y, m, s: s * torch.cos(torch.acos(c) + m), "on every class"),
        ("margin-5", lambda c, y, m, s: margins.angular_margin_logits(c, y, m, 1.0), "scale is missing"),
        ("margin-4", lambda c, m, s: s * torch.cos(torch.acos(c) - m), "sign is wrong"),
        ("margin-6", lambda c, m, s: torch.cos(torch.acos(c) + m).argmax(1), "margin at inference"),
        ("margin-7", lambda n, t: -t * torch.log(n), "divide the counts by their sum first"),
        ("margin-7", lambda n, t: -t * torch.log10(n / n.sum()) / math.log(len(n)), "base 10"),
        ("margin-8", lambda q, m, y, g, k: (1 - g) * k * q + g * m[y], "Gamma is swapped"),
        ("margin-9", lambda c, y, m, a, d, k: 0.0, "your answer is 0. It is too small."),
        ("margin-10", lambda t, m, s, o: s * torch.sigmoid(s * (o - torch.cos(t + m))) * torch.cos(t + m), "swapped"),
        ("margin-4", lambda c, m, s: 1 / 0, "ZeroDivisionError"),
        ("margin-4", lambda c, m: c, "TypeError"),
        ("margin-4", lambda c, m, s: "an angle", "returns 'an angle', which is no number"),
        ("margin-4", lambda c, m, s: torch.cos(torch.acos(2 * c) + m), "has an entry that is not finite"),
        ("margin-7", lambda n, t: 1.3 * margins.class_margin(n, t), "entry 0 of your answer"),
        ("margin-9", lambda *given: -EXERCISES["margin-9"](*given), REPLIES["sign"]),
        ("margin-4", "an angle", REPLIES["no number"]),
        ("margin-3", 5.0, REPLIES["large"]),
        ("margin-3", -4.63, REPLIES["sign"]),
    ],
)
def test_answers_as_a_learner_would_write_them(name, answer, words):
    feedback = lessons.check(name, answer)
    assert not feedback
    assert words in feedback
    number = f"{EXERCISES[name].value(EXERCISES[name]):.4g}"
    assert len(number) == 1 or number not in feedback


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("margin-1", lambda z: z.T, "The shape is (3, 4), expected is (4 clips, 3 classes). The two axes are swapped"),
        ("margin-1", lambda z: z.sum(1), "The axis of classes is missing: something sums or picks along it (dim=1)"),
        ("margin-1", lambda z: z[0], "The axis of clips is missing: something sums or picks along it (dim=0)"),
        ("margin-1", lambda z: z[None], "Axis 0 has length 1 and is one too many: squeeze it"),
        ("margin-1", lambda z: z @ z.T, "(4, 4), expected is (4 clips, 3 classes). Axis 1 should hold the classes: 3"),
        ("margin-4", lambda z: z[:, None] + z, "The shape is (3, 3), expected is (3 clips)"),
        ("margin-4", lambda z: z[:, None] + z, "Or shapes [n] and [n, 1] were combined, which makes a table"),
        ("margin-9", lambda z: z.repeat(3), "(3,), expected is one number. Axis 0 is one too many: a mean"),
        ("margin-9", lambda z: z.repeat(2, 2), "expected is one number. Count the axes"),
    ],
)
def test_a_wrong_shape_is_named_with_its_axis(name, change, words):
    assert words in lessons.check(name, lambda *given: change(EXERCISES[name](*given)))


def test_answers_in_lists_and_of_two_digits_are_right():
    assert lessons.check("margin-7", lambda n, t: margins.class_margin(n, t).tolist())
    rounded = functools.partial(torch.round, decimals=3)
    assert lessons.check("margin-7", lambda n, t: rounded(margins.class_margin(n, t)))
    assert not lessons.check("margin-7", lambda n, t: rounded(margins.class_margin(n, t)) + 0.01)


def test_an_answer_that_writes_into_its_input_cannot_spoil_the_next():
    def careless(cosine, margin, scale):
        return cosine.acos_().add_(margin).cos_().mul_(scale)

    assert lessons.check("margin-4", careless)
    assert lessons.check("margin-4", careless)


def test_an_unknown_exercise_is_named():
    with pytest.raises(ConfigError, match="no exercise 'margin-99'"):
        lessons.check("margin-99", 0)


def test_the_best_score_is_the_curves():
    """The worked answer on operating points against the library: both methods' curves, and their equal Scores now."""
    label, kind = BANK["_TRUE"], BANK["_KIND"]
    best = {}
    for method, odds in BANK["_ODDS"].items():
        p = torch.zeros(len(label), 4, dtype=torch.float64)
        p[:, 0], p[torch.arange(len(label)), kind] = 1 / (1 + odds.double()), odds.double() / (1 + odds.double())
        table = pd.DataFrame(p.numpy(), columns=["p0", "p1", "p2", "p3"]).assign(label=label.numpy())
        best[method] = evaluation.curve(table)["Score"].max()
        assert EXERCISES["operating-1"](label, odds, kind).item() == pytest.approx(best[method])
        assert evaluation.icbhi_score(label.numpy(), p.argmax(1).numpy())[2] == pytest.approx(57.5)
    assert best["B"] - best["A"] == pytest.approx(20)


# ---- hints, answers, progress --------------------------------------------------------------------------------------


@EACH
def test_hints_come_in_stages_and_the_answer_when_asked(name):
    exercise = EXERCISES[name]
    step, formula = lessons.hint(name, 1), lessons.hint(name, 2)
    assert repr(step) == f'{exercise.hints[0]}\nMore: lessons.hint("{name}", 2)'
    assert repr(formula) == f'{exercise.hints[1]}\nMore: lessons.answer("{name}")'
    number = f"{exercise.value(exercise):.4g}"
    assert number not in step + formula
    shown = repr(lessons.answer(name))
    assert inspect.getsource(exercise.answer) in shown
    assert f"By hand: {number}" in shown
    with pytest.raises(ConfigError, match="no stage 3"):
        lessons.hint(name, 3)


def test_the_count_outlives_a_restart_and_counts_an_exercise_once():
    total = len(EXERCISES)
    assert repr(lessons.progress()) == f"0 of {total} solved."
    lessons.check("margin-3", 5)
    assert repr(lessons.progress()) == f"0 of {total} solved."
    for answer in (4.6, 4.63, EXERCISES["margin-3"]):
        lessons.check("margin-3", answer)
    assert "2 of" in lessons.check("margin-4", EXERCISES["margin-4"])
    (lessons.SOLVED / "no-exercise").touch()
    code = "import sys, pathlib; from qlung.book import lessons; lessons.SOLVED = pathlib.Path(sys.argv[1])"
    run = [sys.executable, "-c", f"{code}; print(lessons.progress())", str(lessons.SOLVED)]
    again = subprocess.run(run, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert again.stdout == f"2 of {total} solved.\n"
    lessons.check("margin-3", 5)  # a wrong answer later takes nothing away
    assert "2 of" in lessons.progress()


def test_a_right_answer_stays_right_where_nothing_can_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(lessons, "SOLVED", tmp_path / "file" / "solved")
    assert lessons.check("margin-3", 4.6)
    assert "0 of" in lessons.progress()


def test_the_count_lies_with_the_readers_answers():
    code = "from qlung.book import lessons; print(lessons.SOLVED)"
    run = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(paths.NOTEBOOKS / "exercises" / "mine" / "solved")
    assert "/notebooks/exercises/mine/" in (paths.ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


# ---- the notebooks -------------------------------------------------------------------------------------------------


def test_committed_exercises_are_made_of_the_bank():
    made = build_notebooks.exercises()
    assert made == build_notebooks.exercises()
    for name, text in made.items():
        committed = (paths.NOTEBOOKS / "exercises" / name).read_text(encoding="utf-8")
        assert committed == text, "run `make notebooks`"
    book = json.loads(made["03_exercises.ipynb"])
    ids = [cell["id"] for cell in book["cells"]]
    assert len(set(ids)) == len(ids)
    script = jupytext.reads(made["03_exercises.py"], fmt="py:percent")
    assert [cell.source for cell in script.cells] == ["".join(cell["source"]) for cell in book["cells"]]
    assert max(len(line) for line in made["03_exercises.py"].splitlines()) <= 100


@EACH
def test_the_theory_stands_beside_each_exercise_and_its_answer_does_not(name):
    exercise = EXERCISES[name]
    cells = jupytext.read(build_notebooks.EXERCISES).cells
    (question,) = [cell.source for cell in cells if cell.source.startswith(f"## {name}: {exercise.title}\n")]
    theory, _, asked = question.partition("**By hand.**")
    assert "$" in theory
    assert 2 <= len(re.findall(r"[.!?](?:\s|$)", theory)) <= 7
    linked = re.findall(r"\]\(\.\./([\w.]+)#((?:[^()]|\([^()]*\))+)\)", theory)
    assert linked
    for notebook, anchor in linked:
        text = "\n".join(cell.source for cell in nbformat.read(paths.NOTEBOOKS / notebook, 4).cells)
        assert anchor in [heading.replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    body = inspect.getsource(exercise.answer).strip().splitlines()[-1].strip()
    everything = "\n".join(cell.source for cell in cells)
    assert body not in everything
    assert asked.strip()


@EACH
def test_nothing_below_a_question_of_the_lesson_gives_its_answer_away(name):
    """Neither the worked answer in an open cell, nor the number in text or output."""
    if name == "operating-1":
        return
    exercise = EXERCISES[name]
    book = nbformat.read(LESSON.with_suffix(".ipynb"), 4)
    anchor = f"exercises/03_exercises.ipynb#{name}:-{exercise.title.replace(' ', '-')}"
    at = next(i for i, cell in enumerate(book.cells) if anchor in cell.source.replace("\n", ""))
    assert f"**Exercise {name} ({exercise.title}).**" in book.cells[at].source
    (returned,) = re.findall(r"return (.+)", inspect.getsource(exercise.answer))
    number = re.compile(rf"(?<![\d.]){re.escape(f'{exercise.value(exercise):.3g}')}")
    for cell in book.cells[at + 1 :]:
        if not cell.metadata.get("jupyter", {}).get("source_hidden"):
            assert returned not in cell.source
        said = cell.source if cell.cell_type == "markdown" else ""
        said += "".join(output.get("text", "") for output in cell.get("outputs", []))
        assert name == "margin-6" or not number.search(said), said


def test_stubs_keep_signature_and_docstring_only():
    made = build_notebooks.stub(EXERCISES["margin-6"].answer)
    docstring = '    """Class index [B] from cosines [B, C]."""'
    assert made == f"def predict(cosine, class_margin, scale):\n{docstring}\n    ...  # your code"


def test_the_exercise_notebook_runs_with_nothing_filled_in():
    """Every check answers that nothing is there; nothing stops."""
    script = (paths.NOTEBOOKS / "exercises" / "03_exercises.py").read_text(encoding="utf-8")
    lines = [re.sub(r"^(lessons\.check\(.*?\))(  #.*)?$", r"print(\1)", line) for line in script.splitlines()]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=paths.ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(f"Not yet. {REPLIES['empty']}") == 2 * len(EXERCISES)
