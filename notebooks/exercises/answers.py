"""The exercises of notebook 03: reference answers, inputs to try them on, and usual mistakes, each explained."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from qlung.margins import angular_margin_logits, class_margin


@dataclass(frozen=True)
class Exercise:
    """A reference answer, the inputs it is tried on, and usual mistakes, each a wrong answer with its explanation."""

    reference: Callable
    cases: tuple[tuple, ...]
    why: str
    hint: str
    mistakes: tuple[tuple[Callable, str], ...]


def _cosines(features, prototypes):
    return F.normalize(features, dim=1) @ F.normalize(prototypes, dim=1).T


def _reach(scale, n_classes, other=None):
    other = -1 / (n_classes - 1) if other is None else other
    return 1 / (1 + (n_classes - 1) * math.exp(scale * (other - 1)))


def _arcface(cosine, margin, scale):
    return scale * torch.cos(torch.acos(cosine) + margin)


def _on(mask: Tensor, cosine, margin, scale):
    return torch.where(mask, _arcface(cosine, margin, scale), scale * cosine)


def _one_hot(cosine, target):
    return F.one_hot(target, cosine.shape[1]).bool()


def _mixed(first, second, gamma):
    return gamma * first + (1 - gamma) * second


def _total(cosine, target, margin, scale_cls, scale_margin, lam):
    shifted = angular_margin_logits(cosine, target, margin, scale_margin)
    return F.cross_entropy(scale_cls * cosine, target) + lam * F.cross_entropy(shifted, target)


def _pull(theta, margin, scale, other):
    p = torch.sigmoid(scale * (torch.cos(theta + margin) - other))
    return scale * (1 - p) * torch.sin(theta + margin)


_X, _W = torch.tensor([[3.0, 4.0], [1.0, -0.5]]), torch.tensor([[2.0, 0.0], [0.0, 0.5], [-1.0, 1.0]])
_COS = torch.tensor([[0.6, 0.1, -0.3, 0.2], [-0.2, 0.5, 0.4, 0.0], [0.1, -0.4, 0.3, 0.7]])
_Y, _M, _COUNTS = torch.tensor([0, 2, 3]), torch.tensor([0.3, 0.2, 0.5]), torch.tensor([2063, 1215, 501, 363])
_MC = class_margin(_COUNTS)
_CLOSE = torch.tensor([[0.52, 0.1, 0.05, 0.5], [0.3, 0.45, 0.31, 0.1], [0.5, 0.1, 0.2, 0.52]])
_THETA = torch.tensor([0.3, 1.0, 2.0])

EXERCISES = {
    "margin-1": Exercise(
        _cosines, ((_X, _W),),
        "Lengths are gone: only directions are left to tell the classes apart.",
        "Divide every feature and every prototype by its own length, then take all dot products: shape [B, C].",
        (
            (lambda x, w: x @ w.T,
             "These are dot products: both lengths are still in them. Normalise features and prototypes."),
            (lambda x, w: F.normalize(x, dim=1) @ w.T, "The prototypes keep their length, so a long one still wins."),
            (lambda x, w: x @ F.normalize(w, dim=1).T,
             "The features keep their length, so the loss can still fall by growing them."),
            (lambda x, w: F.normalize(x, dim=0) @ F.normalize(w, dim=0).T,
             "You normalised the columns (dim=0); a clip's feature is a row: use dim=1."),
        ),
    ),
    "margin-2": Exercise(
        _reach, ((5.0, 4), (15.0, 4), (2.0, 10)),
        "With the scale at 1, four classes could never pass 56 %: the scale is what lets the loss reach zero.",
        "The best case: cosine 1 to the own prototype, -1/(C-1) to each of the C-1 others. Put these in a softmax.",
        (
            (lambda s, c: _reach(1.0, c), "The scale is missing: the logits are scale * cosine."),
            (lambda s, c: _reach(s, c, 0.0),
             "You put the others at 90 degrees; C prototypes can spread further, to cosine -1/(C-1)."),
            (lambda s, c: _reach(s, c, -1.0),
             "Only two classes can be opposite; C prototypes reach cosine -1/(C-1) at best."),
            (lambda s, c: 1 / (1 + c * math.exp(-s * c / (c - 1))), "There are C - 1 other classes, not C."),
        ),
    ),
    "margin-3": Exercise(
        lambda: 0.75 * math.log(297), ((),),
        "Four classes need no more than a scale of 4.3: larger ones, such as 37, change the gradient, not the peak.",
        "Solve reachable_probability(s, 4) = 0.99 for s: s = (C-1)/C * log((C-1) p / (1-p)).",
        (
            (lambda: 0.75 * math.log10(297),
             "That is log to base 10; the softmax is made of e: use the natural logarithm."),
            (lambda: math.log(297),
             "That holds for prototypes at 90 degrees; spread out they reach -1/3, which saves a factor (C-1)/C."),
            (lambda: 0.75 * math.log(99), "You forgot that C - 1 = 3 classes share the rest of the probability."),
        ),
    ),
    "margin-4": Exercise(
        _arcface, ((torch.tensor([0.9, 0.3, -0.5]), 0.3, 15.0), (torch.tensor([0.7]), 0.5, 37.0)),
        "The angle grows by the margin before the cosine is taken; the logit falls, so the clip must come closer.",
        "Go to the angle (acos), add the margin in radians, come back (cos), and multiply by the scale.",
        (
            (lambda c, m, s: _arcface(c, math.radians(m), s),
             "The margin is in radians already; you converted it as if it were degrees."),
            (lambda c, m, s: _arcface(c, math.degrees(m), s),
             "You turned the margin into degrees; torch.cos wants radians."),
            (lambda c, m, s: _arcface(c, -m, s),
             "The sign is wrong: a smaller angle makes the target easier. Add the margin."),
            (lambda c, m, s: _arcface(c, m, 1.0), "The scale is missing: multiply the cosine by it at the end."),
            (lambda c, m, s: s * (c - m),
             "That is CosFace: you took the margin off the cosine; ArcFace adds it to the angle."),
            (lambda c, m, s: s * torch.acos(c) + m,
             "You stayed with the angle: the logit is the cosine of the larger angle."),
        ),
    ),
    "margin-5": Exercise(
        lambda cosine, target, margin, scale: _on(_one_hot(cosine, target), cosine, margin, scale),
        ((_COS, _Y, 0.3, 15.0), (_COS, torch.tensor([1, 1, 0]), 0.5, 37.0)),
        "Only the true class is made harder; the others keep their cosines, all on one scale.",
        "Start from scale * cosine and replace, in every row, the entry of the target's column.",
        (
            (lambda c, y, m, s: _arcface(c, m, s),
             "The margin is on every class: it nearly cancels in the softmax. Only the target's column gets it."),
            (lambda c, y, m, s: _on(~_one_hot(c, y), c, m, s),
             "The margin is on the wrong classes: you made the others harder, which makes the target easier."),
            (lambda c, y, m, s: _on(_one_hot(c, y), c, -m, s),
             "The sign is wrong: your target is easier with the margin than without."),
            (lambda c, y, m, s: _on(_one_hot(c, y), c, m, 1.0),
             "The scale is missing: without it four classes never pass 56 %."),
            (lambda c, y, m, s: torch.where(_one_hot(c, y), _arcface(c, m, s), c),
             "Only the target is scaled; the softmax compares logits, so all need the same scale."),
            (lambda c, y, m, s: _on(_one_hot(c, y), c, math.radians(m), s),
             "The margin is in radians already; you converted it as if it were degrees."),
        ),
    ),
    "margin-6": Exercise(
        lambda cosine, class_margin, scale: cosine.argmax(1), ((_CLOSE, _MC, 37.0), (_COS, _MC, 15.0)),
        "At inference there is no target, so there is nothing to add a margin to, and no quality is needed.",
        "Which prototype is nearest? The margin was a demand made in training.",
        (
            (lambda c, m, s: _arcface(c, m, s).argmax(1),
             "You used the margin at inference: it was a handicap for the *true* class in training; here it only "
             "punishes rare classes."),
            (lambda c, m, s: _arcface(c, -m, s).argmax(1),
             "You paid the class margin back at inference: that is a prior correction, not this classifier. Take "
             "the nearest prototype."),
            (lambda c, m, s: c.argmin(1), "The largest *angle* is the farthest prototype; take the largest cosine."),
            (lambda c, m, s: (s * c).softmax(1),
             "These are the probabilities; the prediction is the index of the largest."),
        ),
    ),
    "margin-7": Exercise(
        lambda counts, target: class_margin(counts, target), ((_COUNTS, 0.2), (torch.tensor([10, 90]), 0.3)),
        "Divided by log C, a perfectly balanced class gets exactly the target, whatever C is.",
        "Frequencies first (counts / sum), then -target * log(frequency) / log(C).",
        (
            (lambda n, t: -class_margin(n, t),
             "The sign is wrong: log of a frequency is negative, so a minus makes the margin positive."),
            (lambda n, t: class_margin(n, t) * math.log(len(n)),
             "The scale is missing: divide by log C, so that a balanced class gets exactly the target."),
            (lambda n, t: class_margin(n, t) / math.log(10),
             "That is log to base 10 on top and natural below; use one base for both."),
            (lambda n, t: t * n.log() / math.log(len(n)),
             "You took the log of the counts: divide by their sum first, or the commonest class gets the largest "
             "margin."),
            (lambda n, t: torch.rad2deg(class_margin(n, t)), "Those are degrees; margins are radians throughout."),
        ),
    ),
    "margin-8": Exercise(
        lambda aqs, class_margin, target, gamma, kappa: _mixed(kappa * aqs, class_margin[target], gamma),
        ((torch.tensor([0.2, 0.9, 0.5]), _MC, _Y, 0.3, 0.5), (torch.tensor([1.0]), _MC, torch.tensor([3]), 0.8, 0.4)),
        "Gamma weighs quality against rarity; a clip's demand is the mixture.",
        "gamma * (kappa * quality) + (1 - gamma) * (the margin of the clip's own class).",
        (
            (lambda q, m, y, g, k: _mixed(k * q, m[y], 1 - g),
             "Gamma is swapped: it belongs to the quality margin, 1 - gamma to the class margin."),
            (lambda q, m, y, g, k: _mixed(q, m[y], g),
             "Kappa is missing: a quality of 1 asks for kappa radians, not for one radian."),
            (lambda q, m, y, g, k: _mixed(k * (1 - q), m[y], g),
             "The quality is upside down: in QLung better audio gets the *larger* margin (AdaFace's angle goes "
             "your way)."),
            (lambda q, m, y, g, k: k * q + m[y], "You added both in full: gamma and 1 - gamma make them a mixture."),
            (lambda q, m, y, g, k: _mixed(k * q, m.flip(0)[y], g),
             "The class margins are in the wrong order: index them with the clip's own class."),
        ),
    ),
    "margin-9": Exercise(
        _total, ((_COS, _Y, _M, 37.0, 15.0, 0.4), (_COS, torch.tensor([0, 1, 2]), _M, 20.0, 10.0, 1.5)),
        "One set of cosines, two temperatures: a sharp classifier without a margin and a softer one with it.",
        "cross_entropy(scale_cls * cosine) + lam * cross_entropy(angular_margin_logits(..., scale_margin)).",
        (
            (lambda c, y, m, a, d, k: _total(c, y, m, d, a, k),
             "The scales are swapped: scale_cls belongs to the classifier, scale_margin to the margin term."),
            (lambda c, y, m, a, d, k: _total(c, y, m, a, a, k),
             "Both terms have the classifier's scale; the margin term has its own."),
            (lambda c, y, m, a, d, k: _total(c, y, m, 1.0, d, k), "The scale of the classifier term is missing."),
            (lambda c, y, m, a, d, k: _total(c, y, m, a, d, 1.0), "Lambda is missing: it weighs the margin term."),
            (lambda c, y, m, a, d, k: _total(c, y, torch.zeros_like(m), a, d, k),
             "There is no margin in your second term."),
            (lambda c, y, m, a, d, k: _total(c, y, -m, a, d, k),
             "The sign of the margin is wrong: your second term is easier than no margin."),
        ),
    ),
    "margin-10": Exercise(
        _pull, ((_THETA, 0.3, 15.0, 0.2), (_THETA, 0.0, 5.0, -0.5)),
        "Two factors: 1 - p fades when the clip is safe, sin(theta + m) is the leverage of the angle.",
        "Chain rule: dL/dlogit = -(1 - p), and the logit scale * cos(theta + m) has slope -scale * sin(theta + m).",
        (
            (lambda t, m, s, o: -_pull(t, m, s, o),
             "The sign is wrong: a larger angle means a larger loss, so the slope is positive."),
            (lambda t, m, s, o: _pull(t, m, s, o) / s,
             "The scale is missing: it multiplies the slope as well as the logit."),
            (lambda t, m, s, o: _pull(t, 0.0, s, o),
             "There is no margin in your slope: use theta + margin in p and in the sine."),
            (lambda t, m, s, o: s * torch.sigmoid(s * (torch.cos(t + m) - o)) * torch.sin(t + m),
             "You used p where 1 - p belongs: a clip that is already right would be pulled hardest."),
            (lambda t, m, s, o: _pull(t, math.radians(m), s, o),
             "The margin is in radians already."),
        ),
    ),
}  # fmt: skip
