"""The exercises of the book: theory, tasks, worked answers, hints, and the usual mistakes with their explanations.

Each exercise can be answered by hand, with a number, and in code, with a function. Both are checked with the same
worked answer and the same mistakes, in notebooks (qlung/book/lessons.py) and on the site (docs/conf.py).
"""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from qlung import margins

REPLIES = {  # to a number of any exercise, in notebooks and on the site
    "empty": "The answer is still empty.",
    "no number": "That is not a finite number. Write it with digits, such as 0.35.",
    "sign": "The size is right, the sign is wrong.",
    "cut": "The digits are cut off. Round the last one.",
    "near": "Very close, but not correctly rounded. Keep all digits until the end, then give at least {digits} digits.",
    "large": "It is too large.",
    "small": "It is too small.",
}
ENOUGH = 4  # significant digits: an answer needs no more
NEAR = 0.02  # of the right number

# ---- Checking. docs/_static/exercises.js has the same rules for numbers; tests/test_site.py compares both. -----------


def _digits(number: float) -> tuple[int, int]:
    """(significant digits as written, decimal exponent) of a number; beyond seven digits it is noise."""
    mantissa, exponent = f"{abs(number):.6e}".split("e")
    return len(mantissa.replace(".", "").rstrip("0")), int(exponent)


def is_rounded(given: float, wanted: float, digits: int = 2) -> bool:
    """Whether a number is the wanted one, correctly rounded to as many significant digits as it has.

    It needs at least ``digits`` (missing ones are zeros: 0.5 is 0.50), and from four on it may be off by half a unit of
    the fourth.

    Examples
    --------
    >>> [is_rounded(given, 4.6274) for given in (4.6, 4.63, 4.627, 4.62, 4.64, 5)]
    [True, True, True, False, False, False]
    """
    if not math.isfinite(given):
        return False
    digits = min(max(digits, _digits(given)[0]), ENOUGH)
    exponent = min(_digits(given)[1], _digits(wanted)[1])  # 0.99 is not 1
    return abs(given - wanted) <= 0.5 * 10.0 ** (exponent + 1 - digits) * (1 + 1e-6) + 1e-6


def number_fault(given: float, wanted: float, mistakes, digits: int) -> str:
    """What is wrong with a number, from [(value, explanation)] of the usual mistakes; empty if it is right."""
    if not math.isfinite(given):
        return REPLIES["no number"]
    if is_rounded(given, wanted, digits):
        return ""
    for value, text in mistakes:
        if is_rounded(given, value):
            return text
    if is_rounded(-given, wanted):
        return REPLIES["sign"]
    written, missing = max(_digits(given)[0], digits), abs(wanted) - abs(given)
    if given * wanted > 0 and 0 < missing < 10.0 ** (_digits(wanted)[1] + 1 - written):
        return REPLIES["cut"]
    if abs(given - wanted) <= NEAR * abs(wanted):
        return REPLIES["near"].format(digits=digits)
    return REPLIES["large" if given > wanted else "small"]


def _same(given: Tensor, wanted: Tensor) -> bool:
    return given.shape == wanted.shape and all(map(is_rounded, given.flatten().tolist(), wanted.flatten().tolist()))


def _numbers(value) -> Tensor | None:
    try:
        return torch.as_tensor(value, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        return None


def shape_fault(given: tuple, wanted: tuple, axes: tuple) -> str:
    """What was given, what was expected, and which axis is probably wrong."""
    expected = f"({', '.join(f'{n} {axis}' for n, axis in zip(wanted, axes, strict=True))})" if wanted else "one number"
    sides = range(max(len(wanted), len(given)))
    lost = [i for i in sides if wanted[:i] + wanted[i + 1 :] == given]
    extra = [i for i in sides if given[:i] + given[i + 1 :] == wanted]
    if len(wanted) == 2 and given == wanted[::-1]:
        why = "The two axes are swapped: transpose, or swap the factors of the product."
    elif wanted and lost:
        why = f"The axis of {axes[lost[0]]} is missing: something sums or picks along it (dim={lost[0]})."
    elif extra and given[extra[0]] == 1:
        why = f"Axis {extra[0]} has length 1 and is one too many: squeeze it."
    elif extra:
        why = f"Axis {extra[0]} is one too many: a mean, a sum or an index along dim={extra[0]} is missing."
        if len(wanted) == 1:
            why += " Or shapes [n] and [n, 1] were combined, which makes a table."
    elif len(given) == len(wanted):
        wrong = next(i for i in sides if given[i] != wanted[i])
        why = f"Axis {wrong} should hold the {axes[wrong]}: {wanted[wrong]}, not {given[wrong]}."
    else:
        why = "Count the axes of each step."
    return f"The shape is {given}, expected is {expected}. {why}"


def _array_fault(given: Tensor, wanted: Tensor, axes: tuple) -> str:
    """What is wrong with what a function returned: its shape, else its first wrong entry."""
    if given.shape != wanted.shape:
        return shape_fault(tuple(given.shape), tuple(wanted.shape), axes)
    pairs = zip(given.flatten().tolist(), wanted.flatten().tolist(), strict=True)
    entry, pair = next((i, pair) for i, pair in enumerate(pairs) if not is_rounded(*pair))
    if not math.isfinite(pair[0]):
        return f"your answer {_show(given)} has an entry that is not finite."
    where = f"entry {entry} of your answer {_show(given)}" if given.ndim else f"your answer is {_show(given)}"
    return f"{where}. {number_fault(*pair, (), 2)}"


def _show(value) -> str:
    if isinstance(value, Tensor):
        value = value.tolist() if value.numel() <= 12 else f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, list):
        return f"[{', '.join(map(_show, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, repr=False)
class Exercise:
    """What one exercise asks, and what is needed to check an answer and to explain a wrong one."""

    title: str
    theory: str  # Markdown; two or three sentences, with the section that derives them
    task: str  # Markdown: the function to write
    question: str  # Markdown: the number to find by hand
    answer: Callable  # the worked answer; its source is shown when asked for
    number: Callable  # the number that a function gives for the question
    cases: tuple[tuple, ...]  # inputs on which a function is compared with the answer
    why: str  # shown after a right answer
    hints: tuple[str, str]  # which step; the formula
    mistakes: tuple[tuple[Callable, str], ...]  # (wrong function, its explanation); the first that fits is named
    unit: str = ""  # of the number
    axes: tuple[str, ...] = ()  # what the answer's axes hold
    digits: int = 2  # the least number of significant digits of the number

    def __call__(self, *args, **kwargs):
        """The worked answer."""
        return self.answer(*args, **kwargs)

    def __repr__(self) -> str:
        number = f"{self.value(self.answer):.4g} {self.unit}".strip()
        return f"{inspect.getsource(self.answer)}\n# By hand: {number}. {self.why}"

    def value(self, function: Callable) -> float | None:
        """A function's number; None if it gives none for the question."""
        try:
            return float(self.number(function))
        except (IndexError, RuntimeError, TypeError, ValueError):
            return None

    def page(self) -> dict:
        """What the site needs to check a number and to answer."""
        right, wrong = self.value(self.answer), [(self.value(function), text) for function, text in self.mistakes]
        wrong = [(number, text) for number, text in wrong if number is not None and not is_rounded(number, right)]
        return {"value": right, "unit": self.unit, "digits": self.digits, "why": self.why, "hints": self.hints,
                "source": inspect.getsource(self.answer), "mistakes": wrong}  # fmt: skip

    def fault(self, given) -> str:
        """What is wrong with a number or a function; empty if it is right."""
        if given is None or given is ...:
            return REPLIES["empty"]
        if callable(given):
            return self._function_fault(given)
        value = _numbers(given)
        if value is None or value.ndim:
            return REPLIES["no number"]
        page = self.page()
        return number_fault(value.item(), page["value"], page["mistakes"], self.digits)

    def _function_fault(self, function: Callable) -> str:
        try:
            values = [function(*copy.deepcopy(case)) for case in self.cases]
        except Exception as error:  # whatever it raises is an answer to explain, not a failure of ours
            return f"Your function stopped with {type(error).__name__}: {error}."
        if any(value is None or value is ... for value in values):
            return REPLIES["empty"]
        given = [_numbers(value) for value in values]
        if None in given:
            return f"Your function returns {values[given.index(None)]!r}, which is no number and no array of numbers."
        wanted = [_numbers(self.answer(*case)) for case in self.cases]
        if all(map(_same, given, wanted)):
            return ""
        for mistake, text in self.mistakes:
            if all(_same(value, _numbers(mistake(*case))) for value, case in zip(given, self.cases, strict=True)):
                return text
        if all(map(_same, [-value for value in given], wanted)):
            return REPLIES["sign"]
        at = next(i for i, value in enumerate(given) if not _same(value, wanted[i]))
        names = inspect.signature(self.answer).parameters
        inputs = ", ".join(f"{name}={_show(x)}" for name, x in zip(names, self.cases[at], strict=True))
        return f"For {inputs}: {_array_fault(given[at], wanted[at], self.axes)}"


# ---- Worked answers ------------------------------------------------------------------------------------------------


def cosines(features, prototypes):
    """Cosine of every feature [B, d] to every prototype [C, d]: [B, C]."""
    return F.normalize(features, dim=1) @ F.normalize(prototypes, dim=1).T


def reachable_probability(scale, n_classes):
    """Softmax probability of cosine 1 against C - 1 cosines of -1 / (C - 1)."""
    return 1 / (1 + (n_classes - 1) * math.exp(-scale * n_classes / (n_classes - 1)))


def smallest_scale(probability, n_classes):
    """The scale at which the best possible clip reaches a probability."""
    odds = probability / (1 - probability)
    return (n_classes - 1) / n_classes * math.log((n_classes - 1) * odds)


def arcface_logit(cosine, margin, scale):
    """scale * cos(theta + margin), for the cosine [B] of theta."""
    return scale * torch.cos(torch.acos(cosine) + margin)


def margin_logits(cosine, target, margin, scale):
    """Logits [B, C] from cosines [B, C], classes [B], a margin [rad] and a scale."""
    picked = cosine.gather(1, target[:, None])
    return scale * cosine.scatter(1, target[:, None], torch.cos(torch.acos(picked) + margin))


def predict(cosine, class_margin, scale):
    """Class index [B] from cosines [B, C]."""
    return cosine.argmax(dim=1)


def log_class_margin(counts, target):
    """Margin [C, rad] from clips per class [C]; a balanced class gets `target`."""
    frequency = counts / counts.sum()
    return -target * frequency.log() / math.log(len(counts))


def qlung_margin(aqs, class_margin, target, gamma, kappa):
    """m_d [B, rad] from quality [B], class margins [C, rad] and classes [B]."""
    return gamma * kappa * aqs + (1 - gamma) * class_margin[target]


def qlung_loss(cosine, target, margin, scale_cls, scale_margin, lam):
    """Scalar loss from cosines [B, C], classes [B] and margins [B, rad]."""
    loss_cls = F.cross_entropy(scale_cls * cosine, target)
    logits = margins.angular_margin_logits(cosine, target, margin, scale_margin)
    return loss_cls + lam * F.cross_entropy(logits, target)


def angle_gradient(theta, margin, scale, other):
    """dL/dtheta [B, 1/rad] of the two-class loss at angles theta [B, rad]."""
    q = torch.sigmoid(scale * (torch.cos(theta + margin) - other))  # probability of the target
    return scale * (1 - q) * torch.sin(theta + margin)


def best_score(label, odds, kind):
    """Best Score [%] over all lines, from true classes, odds and abnormal classes [N]."""
    lines = torch.cat([odds.new_tensor([-1.0]), odds])  # every line that changes a prediction
    right = torch.where(odds > lines[:, None], kind, 0) == label  # [lines, N]
    sp, se = (right[:, side].double().mean(1) for side in (label == 0, label > 0))
    return 100 * ((sp + se) / 2).max()


# ---- Parts of mistakes ---------------------------------------------------------------------------------------------


def _best_probability(scale, n_classes, other):
    return 1 / (1 + (n_classes - 1) * math.exp(scale * (other - 1)))


def _chosen(change, cosine, target, scale):
    """Logits whose target cosine is changed."""
    return scale * torch.where(_one_hot(cosine, target), change(cosine), cosine)


def _one_hot(cosine, target):
    return F.one_hot(target, cosine.shape[1]).bool()


def _rescaled(function, by):
    return lambda *given: by * function(*given)


def _gradient(outer, inner, other, scale, slope=torch.sin):
    """The gradient with another margin in its slope (outer) than in its probability (inner)."""
    return scale * torch.sigmoid(scale * (other - torch.cos(inner))) * slope(outer)


def _scores(label, odds, kind, mean=lambda sp, se: (sp + se) / 2, exact=True, lines=None):
    """The best over all lines, or over the lines given, of another figure than the Score [%]."""
    lines = torch.cat([odds.new_tensor([-1.0]), odds]) if lines is None else lines
    called = torch.where(odds > lines[:, None], kind, 0)
    right = (called == label) if exact else ((called > 0) == (label > 0))
    sp, se = (right[:, side].double().mean(1) for side in (label == 0, label > 0))
    return 100 * mean(sp, se).max()


_IN_DEGREES = "The number is in degrees; margins and angles are in radians throughout."
_X = torch.tensor([[3.0, 4.0], [1.0, -0.5], [-2.0, 1.0], [0.5, 2.0]])
_W = torch.tensor([[2.0, 0.0], [0.0, 0.5], [-1.0, 1.0]])
_COS = torch.tensor([[0.6, 0.1, -0.3, 0.2], [-0.2, 0.5, 0.4, 0.0], [0.1, -0.4, 0.3, 0.7]])
_Y, _M, _COUNTS = torch.tensor([0, 2, 3]), torch.tensor([0.3, 0.2, 0.5]), torch.tensor([2063, 1215, 501, 363])
_MC = margins.class_margin(_COUNTS)
_CLOSE = torch.tensor([[0.52, 0.1, 0.05, 0.5], [0.3, 0.45, 0.31, 0.1], [0.5, 0.1, 0.2, 0.52]])
_THETA = torch.tensor([0.3, 1.0, 2.0])
_ROUND = torch.tensor([0.1, 0.18, 0.3, 0.35])  # class margins of two questions [rad]
_TRUE, _KIND = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 3]), torch.tensor([1, 1, 2, 1, 2, 1, 1, 2, 2])
_ODDS = {"A": torch.tensor([0.1, 0.5, 1.5, 3.0, 8.0, 1.2, 2.0, 4.0, 0.2]),
         "B": torch.tensor([0.1, 0.4, 1.2, 1.5, 9.0, 2.0, 3.0, 5.0, 0.2])}  # fmt: skip


def _clips() -> str:
    """The nine clips of the question on operating points, as a table."""
    names = ("normal", "crackle", "wheeze", "both")
    rows = [["clip", "class", "if called abnormal", "odds of A", "odds of B"], ["---"] * 5]
    for i, (true, kind) in enumerate(zip(_TRUE.tolist(), _KIND.tolist(), strict=True)):
        rows.append([str(i + 1), names[true], names[kind], *(f"{odds[i]:g}" for odds in _ODDS.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


_LESSON = "../03_learn_angular_margins.ipynb"

# ---- The exercises -------------------------------------------------------------------------------------------------

EXERCISES = {
    "margin-1": Exercise(
        "angular classifier",
        r"A linear classifier gives class $k$ the score $w_k^\top x=\lVert w_k\rVert\,\lVert x\rVert\cos\theta_k$. "
        "Division by both lengths leaves $\\cos\\theta_k$: only the direction of the feature $x$ and of the prototype "
        f"$w_k$ counts. Derived in [section 1]({_LESSON}#1.-Normalised-softmax:-the-angular-classifier).",
        "Compute the cosine between every feature of a batch and every prototype.",
        "A feature is (3, 4), a prototype is (−1, 1). What is the cosine of the angle between them?",
        cosines, lambda f: f(_X[:1], _W[2:])[0, 0], ((_X, _W),),
        "The lengths are gone: only the directions distinguish the classes.",
        ("Make both vectors one unit long, then take their scalar product. In code: rows are vectors (dim=1).",
         "cos θ = (x · w) / (‖x‖ ‖w‖). In code: F.normalize(..., dim=1) of both, then first @ second.T: shape [B, C]."),
        (
            (lambda x, w: x @ w.T,
             "That is the scalar product: both lengths are still in it. Divide by the length of both vectors."),
            (lambda x, w: F.normalize(x, dim=1) @ w.T,
             "The prototypes keep their length, so the class with the longest one is preferred."),
            (lambda x, w: x @ F.normalize(w, dim=1).T,
             "The features keep their length, so training can still lower the loss by making them longer."),
            (lambda x, w: F.normalize(x, dim=0) @ F.normalize(w, dim=0).T,
             "You normalised the columns (dim=0); a clip's feature is a row: use dim=1."),
            (lambda x, w: cosines(x, w).acos(), "That is the angle in radians. The question is about its cosine."),
            (lambda x, w: cosines(x, w).acos().rad2deg(),
             "That is the angle in degrees. The question is about its cosine."),
            (lambda x, w: cosines(x, w).acos().sin(),
             "That is the sine of the angle. The scalar product gives the cosine."),
        ),
        axes=("clips", "classes"),
    ),
    "margin-2": Exercise(
        "best probability",
        r"A softmax over logits $s\cos\theta_k$ compares exponentials: $p_y=e^{s\cos\theta_y}/\sum_k "
        r"e^{s\cos\theta_k}$. "
        "The best possible clip has cosine 1 to its own prototype and $-1/(C-1)$ to each of the others: $C$ directions "
        f"cannot spread further apart. Derived in [section 2]({_LESSON}#2.-Scale-of-the-cosines).",
        "Compute the probability that the best possible clip reaches, at scale $s$ with $C$ classes.",
        "Which probability does the best possible clip reach at scale 2 with four classes? Give three digits.",
        reachable_probability, lambda f: f(2.0, 4), ((5.0, 4), (15.0, 4), (2.0, 10)),
        "Without a scale (s = 1), four classes never pass 56 %. A larger scale lets the loss approach zero.",
        ("Put one logit s · 1 and C − 1 logits −s/(C − 1) into the softmax. Then divide numerator and denominator by "
         "the largest exponential.",
         "p = 1 / (1 + (C − 1) exp(−s C / (C − 1)))."),
        (
            (lambda s, c: reachable_probability(1.0, c), "The scale is missing: the logits are scale * cosine."),
            (lambda s, c: _best_probability(s, c, 0.0),
             "You put the others at 90 degrees; C prototypes can be further apart, at cosine -1/(C-1)."),
            (lambda s, c: _best_probability(s, c, -1.0),
             "Only two classes can be opposite; C prototypes reach cosine -1/(C-1) at best."),
            (lambda s, c: 1 / (1 + c * math.exp(-s * c / (c - 1))), "There are C - 1 other classes, not C."),
            (lambda s, c: 1 / (1 + math.exp(-s * c / (c - 1))),
             "You counted one other class; all C - 1 others share the denominator."),
            (_rescaled(reachable_probability, 100), "Those are percent; a probability lies between 0 and 1."),
        ),
        digits=3,
    ),
    "margin-3": Exercise(
        "smallest scale",
        "The odds $p/(1-p)$ of a softmax are easier to solve for than its probability. They are the exponential of the "
        r"right class over the sum of the others: $\frac{p}{1-p}=e^{s\cos\theta_y}\big/\sum_{j\ne "
        r"y}e^{s\cos\theta_j}$. "
        f"See [section 2]({_LESSON}#2.-Scale-of-the-cosines).",
        "Compute the scale at which the best possible clip of margin-2 reaches a probability.",
        "At which scale does the best possible clip of margin-2 reach 95 % with ten classes?",
        smallest_scale, lambda f: f(0.95, 10), ((0.99, 4), (0.95, 10), (0.9, 2)),
        "A scale below 5 is enough here. Larger ones, such as 37, change the gradient, not what can be reached.",
        ("Write the odds of the best possible clip, take the natural logarithm of both sides, and solve for s.",
         "s = (C − 1)/C · ln((C − 1) p / (1 − p))."),
        (
            (lambda p, c: smallest_scale(p, c) / math.log(10),
             "That is the logarithm to base 10; the softmax uses e: take the natural logarithm."),
            (lambda p, c: smallest_scale(p, c) * c / (c - 1),
             "That holds for prototypes at 90 degrees. At cosine -1/(C-1) the scale is smaller by the factor (C-1)/C."),
            (lambda p, c: smallest_scale(p, c) * (c / (c - 1)) ** 2,
             "The factor is upside down: the scale is multiplied by (C-1)/C, not by C/(C-1)."),
            (lambda p, c: (c - 1) / c * math.log(p / (1 - p)),
             "You forgot that the C - 1 other classes share the rest of the probability."),
            (lambda p, c: (c - 1) / c * math.log(c * p / (1 - p)), "There are C - 1 other classes, not C."),
            (lambda p, c: (c - 1) / c * math.log((c - 1) * p),
             "You used the probability itself; the logarithm is of its odds, p / (1 - p)."),
        ),
    ),
    "margin-4": Exercise(
        "ArcFace",
        r"ArcFace adds the margin to the angle before the cosine is taken: the target logit is $s\cos(\theta_y+m)$, "
        r"with $\theta_y=\arccos$ of the cosine and $m$ in radians. CosFace subtracts it from the cosine instead. See "
        f"[section 3]({_LESSON}#3.-Additive-margins:-CosFace-(cosine)-and-ArcFace-(angle)).",
        r"Compute ArcFace's target logit, for $\theta + m \le \pi$.",
        "The cosine is 0.5, the margin 0.3 rad, the scale 15. What is the target logit?",
        arcface_logit, lambda f: f(torch.tensor([0.5]), 0.3, 15.0)[0],
        ((torch.tensor([0.9, 0.3, -0.5]), 0.3, 15.0), (torch.tensor([0.7]), 0.5, 37.0)),
        "The margin is added to the angle before the cosine is taken. The logit falls, so the clip must come closer.",
        ("From the cosine to the angle, then add the margin, then back to a cosine, then the scale. All angles in "
         "radians.",
         "scale · cos(arccos(cosine) + margin)."),
        (
            (lambda c, m, s: arcface_logit(c, math.radians(m), s),
             "The margin is in radians already; you converted it as if it were degrees."),
            (lambda c, m, s: arcface_logit(c, math.degrees(m), s),
             "You turned the margin into degrees and added it to an angle in radians; the cosine wants radians."),
            (lambda c, m, s: arcface_logit(c, -m, s),
             "The sign is wrong: a smaller angle makes the target easier. Add the margin."),
            (lambda c, m, s: arcface_logit(c, m, 1.0), "The scale is missing: multiply the cosine by it at the end."),
            (lambda c, m, s: s * (c - m),
             "That is CosFace: you subtracted the margin from the cosine. ArcFace adds it to the angle."),
            (lambda c, m, s: s * (c + m), "You added the margin to the cosine. ArcFace adds it to the angle."),
            (lambda c, m, s: s * torch.sin(torch.acos(c) + m), "That is the sine; the logit is a cosine."),
            (lambda c, m, s: s * torch.acos(c) + m,
             "You used the angle itself: the logit is the cosine of the larger angle."),
        ),
        axes=("clips",),
    ),
    "margin-5": Exercise(
        "all logits",
        r"Only the target class is made harder: its logit is $s\cos(\theta_y+m)$, all others are $s\cos\theta_j$ with "
        r"the "
        "same scale. A margin on every class would nearly cancel, because a softmax compares logits. See "
        f"[section 3]({_LESSON}#3.-Additive-margins:-CosFace-(cosine)-and-ArcFace-(angle)).",
        "Compute all logits of a batch. Only the target class gets the margin; every class gets the scale.",
        "One clip has the cosines 0.6, 0.1, −0.3 and 0.2; its class is the first. The margin is 0.3 rad, the scale 15. "
        "By how much is the target's logit larger than the largest other one?",
        margin_logits, lambda f: (lambda z: z[0, 0] - z[0, 1:].max())(f(_COS[:1], _Y[:1], 0.3, 15.0)),
        ((_COS, _Y, 0.3, 15.0), (_COS, torch.tensor([1, 1, 0]), 0.5, 37.0)),
        "Only the target class is made harder. The others keep their cosines; all have the same scale.",
        ("Start from scale * cosine for every class. Replace the target's cosine only, in its own column of each row.",
         "Target: scale · cos(arccos(cosine) + margin). Others: scale · cosine. In code: cosine.scatter(1, "
         "target[:, None], ...)."),
        (
            (lambda c, y, m, s: s * c, "There is no margin in it: the target's angle is larger by the margin."),
            (lambda c, y, m, s: arcface_logit(c, m, s),
             "The margin is on every class: it nearly cancels in the softmax. Only the target's column gets it."),
            (lambda c, y, m, s: s * torch.where(_one_hot(c, y), c, arcface_logit(c, m, 1.0)),
             "The margin is on the wrong classes: you lowered the other logits, which makes the target easier."),
            (lambda c, y, m, s: _chosen(lambda x: arcface_logit(x, -m, 1.0), c, y, s),
             "The sign is wrong: your target is easier with the margin than without."),
            (lambda c, y, m, s: margin_logits(c, y, m, 1.0),
             "The scale is missing: without it four classes never pass a probability of 56 %."),
            (lambda c, y, m, s: torch.where(_one_hot(c, y), arcface_logit(c, m, s), c),
             "Only the target is scaled; the softmax compares logits, so all need the same scale."),
            (lambda c, y, m, s: margin_logits(c, y, math.radians(m), s),
             "The margin is in radians already; you converted it as if it were degrees."),
            (lambda c, y, m, s: _chosen(lambda x: x - m, c, y, s),
             "That is CosFace: you subtracted the margin from the target's cosine. ArcFace adds it to the angle."),
        ),
        axes=("clips", "classes"),
    ),
    "margin-6": Exercise(
        "inference",
        "At inference the true class of a clip is unknown. The class is that of the nearest prototype: "
        r"$\hat y=\arg\max_k\cos\theta_k$. See "
        f"[section 3]({_LESSON}#3.-Additive-margins:-CosFace-(cosine)-and-ArcFace-(angle)).",
        "Predict the class of clips whose true class is unknown. You get everything that training used. Use only what "
        "you need.",
        "Classes 0 to 3 have margins of 0.10, 0.18, 0.30 and 0.35 rad. A clip has the cosines 0.50, 0.53, 0.10 and "
        "0.52. Which class does it get?",
        predict, lambda f: f(torch.tensor([[0.5, 0.53, 0.1, 0.52]]), _ROUND, 15.0)[0],
        ((_CLOSE, _MC, 37.0), (_COS, _MC, 15.0)),
        "At inference the target is unknown, so there is no margin. No quality is needed, either.",
        ("Which prototype is nearest? The margin is part of training only.",
         "The class with the largest cosine, without margin and without scale."),
        (
            (lambda c, m, s: arcface_logit(c, m, s).argmax(1),
             "You used the margin at inference. In training it makes the *target* class harder; here it only makes "
             "rare classes less likely."),
            (lambda c, m, s: arcface_logit(c, -m, s).argmax(1),
             "You subtracted the class margin from the angle: that corrects for class frequencies, which this "
             "classifier does not do. Take the nearest prototype."),
            (lambda c, m, s: c.argmin(1),
             "The smallest cosine belongs to the farthest prototype; take the largest cosine."),
            (lambda c, m, s: c.argmax(0), "You compared clips (dim=0). The classes of one clip lie along dim=1."),
            (lambda c, m, s: c.amax(1), "That is the largest cosine itself; the answer is the number of its class."),
            (lambda c, m, s: (s * c).softmax(1),
             "These are the probabilities; the prediction is the index of the largest."),
        ),
        axes=("clips",),
    ),
    "margin-7": Exercise(
        "class margin",
        r"A class with $n_y$ of the $N$ training clips has the frequency $\pi_y=n_y/N$. QLung gives it the log-scaled "
        r"margin $m_c=-m_{\rm target}\,\log\pi_y/\log C$: the rarer the class, the larger the angle. See "
        f"[section 6]({_LESSON}#6.-Class-margins-for-imbalanced-data).",
        r"Compute the log-scaled class margin of every class. `target` is the angle $m_{\rm target}$, not the true "
        r"class "
        "of a clip. Which margin does a class with frequency $1/C$ get?",
        "Four classes have 800, 400, 200 and 100 training clips; the target is 0.2 rad. Which margin does the rarest "
        "class get?",
        log_class_margin, lambda f: f(torch.tensor([800.0, 400.0, 200.0, 100.0]), 0.2)[3],
        ((_COUNTS, 0.2), (torch.tensor([10, 90]), 0.3)),
        "Because of the division by log C, a class with frequency 1/C gets exactly the target, whatever C is.",
        ("First the frequency: clips of the class divided by all clips. Then its logarithm, which is negative. Then "
         "the two factors.",
         "m_c = −target · ln(n / N) / ln C, with N all clips and C the number of classes."),
        (
            (lambda n, t: -log_class_margin(n, t),
             "The sign is wrong: log of a frequency is negative, so a minus makes the margin positive."),
            (lambda n, t: log_class_margin(n, t) * math.log(len(n)),
             "The scale is missing: divide by log C, so that a balanced class gets exactly the target."),
            (lambda n, t: log_class_margin(n, t) / math.log(10),
             "You divided a logarithm to base 10 by a natural one; use the same base for both."),
            (lambda n, t: log_class_margin(n, t) * math.log(10),
             "You divided a natural logarithm by one to base 10; use the same base for both."),
            (lambda n, t: log_class_margin(n, t) * math.log(len(n)) / math.log(10),
             "That is the logarithm to base 10, and the division by log C is missing."),
            (lambda n, t: t * n.log() / math.log(len(n)),
             "You took the log of the counts: divide by their sum first, or the commonest class gets the largest "
             "margin."),
            (lambda n, t: -t * n.log() / math.log(len(n)),
             "You took the log of the counts, so the margin is negative: divide them by their sum first."),
            (lambda n, t: -t * n.log(),
             "That is -target * log(n): divide the counts by their sum first, and the whole by log C."),
            (lambda n, t: log_class_margin(n, t) * math.log(len(n)) / math.log(n.sum()),
             "You divided by the logarithm of all clips; divide by that of the number of classes, log C."),
            (lambda n, t: log_class_margin(n, t) * math.log(len(n)) / len(n),
             "You divided by the number of classes; divide by its logarithm, log C."),
            (lambda n, t: 0 * n + t, "That is what a class with frequency 1/C gets: use the class's own frequency."),
            (lambda n, t: log_class_margin(n, t).flip(0),
             "The order is reversed: the rarest class gets the largest margin."),
            (lambda n, t: torch.rad2deg(log_class_margin(n, t)), _IN_DEGREES),
        ),
        unit="rad", axes=("classes",),
    ),
    "margin-8": Exercise(
        "QLung's margin",
        "QLung's margin is a weighted mean of the quality margin and of the class margin: "
        r"$m_d=\gamma\,\kappa\,\mathrm{AQS}+(1-\gamma)\,m_c(y)$. AQS is the audio-quality score of the clip in [0, 1] "
        "([notebook 02](../02_measure_quality.ipynb)), $y$ its class. See "
        f"[section 7]({_LESSON}#7.-Quality-adaptive-margins-and-the-QLung-loss).",
        "Compute $m_d$ for every clip.",
        "The class margins are 0.10, 0.18, 0.30 and 0.35 rad. A clip of the last class has AQS 0.9; γ = 0.3 and κ = "
        "0.5. Which margin does it get?",
        qlung_margin, lambda f: f(torch.tensor([0.9]), _ROUND, torch.tensor([3]), 0.3, 0.5)[0],
        ((torch.tensor([0.2, 0.9, 0.5]), _MC, _Y, 0.3, 0.5), (torch.tensor([1.0]), _MC, torch.tensor([3]), 0.8, 0.4)),
        "Gamma is the weight of quality against class frequency: the margin is their weighted mean.",
        ("First the quality margin, κ · AQS. Then the margin of the clip's own class. Then their weighted mean.",
         "m_d = γ · κ · AQS + (1 − γ) · m_c of the clip's own class."),
        (
            (lambda q, m, y, g, k: qlung_margin(q, m, y, 1 - g, k),
             "Gamma is swapped: it belongs to the quality margin, 1 - gamma to the class margin."),
            (lambda q, m, y, g, k: qlung_margin(q, m, y, g, 1.0),
             "Kappa is missing: a quality of 1 means a margin of kappa radians, not of one radian."),
            (lambda q, m, y, g, k: qlung_margin(1 - q, m, y, g, k),
             "The quality is inverted: in QLung better audio gets the *larger* margin (in AdaFace, the smaller "
             "angle)."),
            (lambda q, m, y, g, k: k * q + m[y],
             "You added both margins: gamma and 1 - gamma make a weighted mean of them."),
            (lambda q, m, y, g, k: qlung_margin(q, m.flip(0), y, g, k),
             "The class margins are in the wrong order: index them with the clip's own class."),
            (lambda q, m, y, g, k: g * k * q, "The class margin is missing: add (1 - gamma) times it."),
            (lambda q, m, y, g, k: k * q,
             "That is the quality margin alone; gamma weighs it against the class margin."),
            (lambda q, m, y, g, k: torch.rad2deg(qlung_margin(q, m, y, g, k)), _IN_DEGREES),
        ),
        unit="rad", axes=("clips",),
    ),
    "margin-9": Exercise(
        "QLung loss",
        r"The loss is $\mathcal L_{\rm cls}+\lambda\,\mathcal L_{\rm DFAM}$, two cross-entropies on the same cosines: "
        r"one "
        "without a margin at scale $s_a$ (`scale_cls`), one with the margin $m_d$ on the target's angle at scale $s_d$ "
        r"(`scale_margin`). Cross-entropy is $-\ln$ of the probability of the true class. See "
        f"[section 7]({_LESSON}#The-QLung-loss).",
        r"Add the two cross-entropies, the second one times $\lambda$. `margins.angular_margin_logits` and "
        "`F.cross_entropy` are at hand.",
        "There are two classes. A clip of the first has the cosines 0.5 and 0.2 and a margin of 0.4 rad. The scales "
        "are 6 (classifier) and 3 (margin loss), λ = 0.5. What is the loss?",
        qlung_loss,
        lambda f: f(torch.tensor([[0.5, 0.2]]), torch.tensor([0]), torch.tensor([0.4]), 6.0, 3.0, 0.5),
        ((_COS, _Y, _M, 37.0, 15.0, 0.4), (_COS, torch.tensor([0, 1, 2]), _M, 20.0, 10.0, 1.5)),
        "Both terms use the same cosines: one at a large scale without a margin, one at a smaller scale with it.",
        ("Compute two cross-entropies apart: logits s_a · cosine; then logits s_d · cosine with the target's angle "
         "larger by the margin. Weigh only the second one.",
         "With two classes each term is ln(1 + exp(other logit − target logit)). In code: F.cross_entropy(scale_cls * "
         "cosine, target) + lam * F.cross_entropy(margins.angular_margin_logits(cosine, target, margin, scale_margin), "
         "target)."),
        (
            (lambda c, y, m, a, d, k: qlung_loss(c, y, m, d, a, k),
             "The scales are swapped: scale_cls belongs to the classifier, scale_margin to the margin term."),
            (lambda c, y, m, a, d, k: qlung_loss(c, y, m, a, a, k),
             "Both terms have the scale of the classifier; the margin term has a scale of its own."),
            (lambda c, y, m, a, d, k: qlung_loss(c, y, m, 1.0, d, k), "The scale of the classifier term is missing."),
            (lambda c, y, m, a, d, k: qlung_loss(c, y, m, a, 1.0, k), "The scale of the margin term is missing."),
            (lambda c, y, m, a, d, k: qlung_loss(c, y, m, a, d, 1.0), "Lambda is missing: it weighs the margin term."),
            (lambda c, y, m, a, d, k: qlung_loss(c, y, torch.zeros_like(m), a, d, k),
             "There is no margin in your second term."),
            (lambda c, y, m, a, d, k: qlung_loss(c, y, -m, a, d, k),
             "The sign of the margin is wrong: your second term is easier than without a margin."),
            (lambda c, y, m, a, d, k: F.cross_entropy(margins.angular_margin_logits(c, y, m, a), y)
             + k * F.cross_entropy(margins.angular_margin_logits(c, y, m, d), y),
             "The margin is in both terms; the classifier term has none."),
            (lambda c, y, m, a, d, k: F.cross_entropy(a * c, y)
             + k * F.cross_entropy(_chosen(lambda x: x - m[:, None], c, y, d), y),
             "You subtracted the margin from the cosine; add it to the target's angle."),
            (_rescaled(qlung_loss, 1 / math.log(10)),
             "That is the logarithm to base 10; cross-entropy uses the natural one."),
            (lambda c, y, m, a, d, k: len(y) * qlung_loss(c, y, m, a, d, k),
             "You summed over the clips; the loss is their mean."),
        ),
    ),
    "margin-10": Exercise(
        "gradient in the angle",
        r"There is one other class. Its logit is $s\cdot$`other`, where `other` is a fixed cosine; the target's logit "
        r"is $s\cos(\theta+m)$. The loss is $L=-\ln q$, with $q=\sigma\bigl(s\cos(\theta+m)-s\cdot{}$`other`$\bigr)$ "
        r"the "
        f"probability of the target. See [section 7]({_LESSON}#The-gradient-of-the-QLung-loss).",
        r"Compute the gradient $dL/d\theta$ of the cross-entropy.",
        "The angle is 1 rad, the margin 0.4 rad, the scale 10, the other cosine 0.1. What is the gradient?",
        angle_gradient, lambda f: f(torch.tensor([1.0]), 0.4, 10.0, 0.1)[0],
        ((_THETA, 0.3, 15.0, 0.2), (_THETA, 0.0, 5.0, -0.5)),
        "Two factors: 1 - q is small once the loss is sure of the clip; sin(theta + m) is how fast the cosine falls.",
        ("Chain rule, two steps: how the loss changes with the target's logit, and how that logit changes with the "
         "angle.",
         "dL/dlogit = −(1 − q); dlogit/dθ = −s · sin(θ + m). Their product is s · (1 − q) · sin(θ + m)."),
        (
            (lambda t, m, s, o: -angle_gradient(t, m, s, o),
             "The sign is wrong: a larger angle means a larger loss, so the gradient is positive."),
            (lambda t, m, s, o: angle_gradient(t, m, s, o) / s,
             "The scale is missing: it multiplies the slope as well as the logit."),
            (lambda t, m, s, o: angle_gradient(t, 0.0, s, o),
             "There is no margin in your gradient: use theta + margin in q and in the sine."),
            (lambda t, m, s, o: _gradient(t, t + m, o, s),
             "The margin is missing in the sine; it is in q already."),
            (lambda t, m, s, o: _gradient(t + m, t, o, s),
             "The margin is missing in q; it is in the sine already."),
            (lambda t, m, s, o: _gradient(t + m, t + m, o, s, torch.cos),
             "Cosine and sine are swapped: the slope of a cosine is a sine."),
            (lambda t, m, s, o: s * torch.sin(t + m) - angle_gradient(t, m, s, o),
             "You used q instead of 1 - q: a clip that is already right would get the largest gradient."),
            (lambda t, m, s, o: angle_gradient(t, math.radians(m), s, o),
             "The margin is in radians already; you converted it as if it were degrees."),
        ),
        unit="1/rad", axes=("clips",),
    ),
    "operating-1": Exercise(
        "equal Scores, different order",
        "A network orders clips by their odds of being abnormal, and calls abnormal what lies above a line. Sp is the "
        "share of normal clips below the line, Se the share of abnormal clips above it *whose class is right*, and the "
        "Score is "
        r"$(\mathrm{Sp}+\mathrm{Se})/2$. The line can be moved; the order cannot. See [Operating points in notebook "
        "06](../06_evaluate_icbhi.ipynb#Operating-points).",
        "Find the best Score over all lines. `label` and `kind` are the true class and the most probable abnormal "
        "class of each clip (0 normal, 1 crackle, 2 wheeze, 3 both).",
        "Two methods call abnormal what has odds above 1. Both have a Score of 57.5.\n\n"
        f"{_clips()}\n\nBy how many points is the best Score of B, over all lines, higher than the best Score of A?",
        best_score, lambda f: f(_TRUE, _ODDS["B"], _KIND) - f(_TRUE, _ODDS["A"], _KIND),
        ((_TRUE, _ODDS["A"], _KIND), (_TRUE, _ODDS["B"], _KIND), (_TRUE, _ODDS["B"].flip(0), _KIND)),
        "B orders the clips better, and its line lies in the wrong place; A's line is already at its best. Equal "
        "Scores don't mean equal methods: notebook 06 splits a difference into order and line.",
        ("Sort each method's clips by odds. Move the line from below the lowest clip to above the highest; note Sp, Se "
         "and Score at each step.",
         "Score = (Sp + Se) / 2 with Sp = normal clips below / 5 and Se = abnormal clips above, class right / 4. Clip "
         "9 "
         "never counts: its class is wrong."),
        (
            (lambda label, odds, kind: _scores(label, odds, kind, lines=torch.tensor([1.0])),
             "That compares the lines as they are, at odds 1. Move each method's line to its best place."),
            (lambda label, odds, kind: _scores(label, odds, kind, exact=False),
             "You counted every abnormal clip above the line; Se counts those whose class is right."),
            (lambda label, odds, kind: _scores(label, odds, kind, lambda sp, se: sp + se),
             "You added Sp and Se; the Score is their mean."),
            (lambda label, odds, kind: _scores(label, odds, kind, lambda sp, se: (
                (label == 0).sum() * sp + (label > 0).sum() * se) / len(label)),
             "That is the accuracy over all clips. The Score weighs normal and abnormal clips equally."),
            (_rescaled(best_score, 0.01), "Those are shares; the Score is in percent."),
        ),
        unit="points",
    ),
}  # fmt: skip
