"""The exercises of notebook 03: reference answers, test inputs, and common mistakes with their explanations."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from qlung.margins import angular_margin_logits, class_margin


@dataclass(frozen=True)
class Exercise:
    """What one exercise needs to check an answer and to explain a wrong one."""

    reference: Callable  # the right answer, as a function
    cases: tuple[tuple, ...]  # inputs on which an answer is compared with the reference
    why: str  # shown after a right answer
    hint: str  # shown after an empty or an unknown wrong answer
    mistakes: tuple[tuple[Callable, str], ...]  # (wrong answer, its explanation)


def _cosines(features, prototypes):
    return F.normalize(features, dim=1) @ F.normalize(prototypes, dim=1).T


def _best_probability(scale, n_classes, other=None):
    other = -1 / (n_classes - 1) if other is None else other
    return 1 / (1 + (n_classes - 1) * math.exp(scale * (other - 1)))


def _arcface(cosine, margin, scale):
    return scale * torch.cos(torch.acos(cosine) + margin)


def _arcface_where(mask: Tensor, cosine, margin, scale):
    return torch.where(mask, _arcface(cosine, margin, scale), scale * cosine)


def _one_hot(cosine, target):
    return F.one_hot(target, cosine.shape[1]).bool()


def _weighted_mean(first, second, gamma):
    return gamma * first + (1 - gamma) * second


def _qlung_loss(cosine, target, margin, scale_cls, scale_margin, lam):
    loss_margin = F.cross_entropy(angular_margin_logits(cosine, target, margin, scale_margin), target)
    return F.cross_entropy(scale_cls * cosine, target) + lam * loss_margin


def _angle_gradient(theta, margin, scale, other):
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
        "The lengths are gone: only the directions distinguish the classes.",
        "Divide every feature and every prototype by its own length, then take all dot products: shape [B, C].",
        (
            (lambda x, w: x @ w.T,
             "These are dot products: both lengths are still in them. Normalise features and prototypes."),
            (lambda x, w: F.normalize(x, dim=1) @ w.T,
             "The prototypes keep their length, so the class with the longest one is preferred."),
            (lambda x, w: x @ F.normalize(w, dim=1).T,
             "The features keep their length, so training can still lower the loss by making them longer."),
            (lambda x, w: F.normalize(x, dim=0) @ F.normalize(w, dim=0).T,
             "You normalised the columns (dim=0); a clip's feature is a row: use dim=1."),
        ),
    ),
    "margin-2": Exercise(
        _best_probability, ((5.0, 4), (15.0, 4), (2.0, 10)),
        "Without a scale (s = 1), four classes never pass 56 %. A larger scale lets the loss approach zero.",
        "Cosine 1 to its own prototype, -1/(C-1) to each of the C-1 others. Put scale * cosine into a softmax.",
        (
            (lambda s, c: _best_probability(1.0, c), "The scale is missing: the logits are scale * cosine."),
            (lambda s, c: _best_probability(s, c, 0.0),
             "You put the others at 90 degrees; C prototypes can be further apart, at cosine -1/(C-1)."),
            (lambda s, c: _best_probability(s, c, -1.0),
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
             "That is the logarithm to base 10; the softmax uses e: take the natural logarithm."),
            (lambda: math.log(297),
             "That holds for prototypes at 90 degrees. At cosine -1/3 the scale is smaller by the factor (C-1)/C."),
            (lambda: 0.75 * math.log(99), "You forgot that C - 1 = 3 classes share the rest of the probability."),
        ),
    ),
    "margin-4": Exercise(
        _arcface, ((torch.tensor([0.9, 0.3, -0.5]), 0.3, 15.0), (torch.tensor([0.7]), 0.5, 37.0)),
        "The margin is added to the angle before the cosine is taken. The logit falls, so the clip must come closer.",
        "Compute the angle (acos), add the margin in radians, take the cosine, and multiply by the scale.",
        (
            (lambda c, m, s: _arcface(c, math.radians(m), s),
             "The margin is in radians already; you converted it as if it were degrees."),
            (lambda c, m, s: _arcface(c, math.degrees(m), s),
             "You turned the margin into degrees; torch.cos wants radians."),
            (lambda c, m, s: _arcface(c, -m, s),
             "The sign is wrong: a smaller angle makes the target easier. Add the margin."),
            (lambda c, m, s: _arcface(c, m, 1.0), "The scale is missing: multiply the cosine by it at the end."),
            (lambda c, m, s: s * (c - m),
             "That is CosFace: you subtracted the margin from the cosine. ArcFace adds it to the angle."),
            (lambda c, m, s: s * torch.acos(c) + m,
             "You used the angle itself: the logit is the cosine of the larger angle."),
        ),
    ),
    "margin-5": Exercise(
        lambda cosine, target, margin, scale: _arcface_where(_one_hot(cosine, target), cosine, margin, scale),
        ((_COS, _Y, 0.3, 15.0), (_COS, torch.tensor([1, 1, 0]), 0.5, 37.0)),
        "Only the target class is made harder. The others keep their cosines; all have the same scale.",
        "Start from scale * cosine and replace, in every row, the entry of the target's column.",
        (
            (lambda c, y, m, s: _arcface(c, m, s),
             "The margin is on every class: it nearly cancels in the softmax. Only the target's column gets it."),
            (lambda c, y, m, s: _arcface_where(~_one_hot(c, y), c, m, s),
             "The margin is on the wrong classes: you lowered the other logits, which makes the target easier."),
            (lambda c, y, m, s: _arcface_where(_one_hot(c, y), c, -m, s),
             "The sign is wrong: your target is easier with the margin than without."),
            (lambda c, y, m, s: _arcface_where(_one_hot(c, y), c, m, 1.0),
             "The scale is missing: without it four classes never pass a probability of 56 %."),
            (lambda c, y, m, s: torch.where(_one_hot(c, y), _arcface(c, m, s), c),
             "Only the target is scaled; the softmax compares logits, so all need the same scale."),
            (lambda c, y, m, s: _arcface_where(_one_hot(c, y), c, math.radians(m), s),
             "The margin is in radians already; you converted it as if it were degrees."),
        ),
    ),
    "margin-6": Exercise(
        lambda cosine, class_margin, scale: cosine.argmax(1), ((_CLOSE, _MC, 37.0), (_COS, _MC, 15.0)),
        "At inference the target is unknown, so there is no margin. No quality is needed, either.",
        "Which prototype is nearest? The margin is part of training only.",
        (
            (lambda c, m, s: _arcface(c, m, s).argmax(1),
             "You used the margin at inference. In training it makes the *target* class harder; here it only makes "
             "rare classes less likely."),
            (lambda c, m, s: _arcface(c, -m, s).argmax(1),
             "You subtracted the class margin from the angle: that corrects for class frequencies, which this "
             "classifier does not do. Take the nearest prototype."),
            (lambda c, m, s: c.argmin(1),
             "The smallest cosine belongs to the farthest prototype; take the largest cosine."),
            (lambda c, m, s: (s * c).softmax(1),
             "These are the probabilities; the prediction is the index of the largest."),
        ),
    ),
    "margin-7": Exercise(
        lambda counts, target: class_margin(counts, target), ((_COUNTS, 0.2), (torch.tensor([10, 90]), 0.3)),
        "Because of the division by log C, a class with frequency 1/C gets exactly the target, whatever C is.",
        "Compute the frequencies (counts / sum), then -target * log(frequency) / log(C).",
        (
            (lambda n, t: -class_margin(n, t),
             "The sign is wrong: log of a frequency is negative, so a minus makes the margin positive."),
            (lambda n, t: class_margin(n, t) * math.log(len(n)),
             "The scale is missing: divide by log C, so that a balanced class gets exactly the target."),
            (lambda n, t: class_margin(n, t) / math.log(10),
             "You divided a logarithm to base 10 by a natural one; use the same base for both."),
            (lambda n, t: t * n.log() / math.log(len(n)),
             "You took the log of the counts: divide by their sum first, or the commonest class gets the largest "
             "margin."),
            (lambda n, t: torch.rad2deg(class_margin(n, t)), "Those are degrees; margins are radians throughout."),
        ),
    ),
    "margin-8": Exercise(
        lambda aqs, class_margin, target, gamma, kappa: _weighted_mean(kappa * aqs, class_margin[target], gamma),
        ((torch.tensor([0.2, 0.9, 0.5]), _MC, _Y, 0.3, 0.5), (torch.tensor([1.0]), _MC, torch.tensor([3]), 0.8, 0.4)),
        "Gamma is the weight of quality against class frequency: the margin is their weighted mean.",
        "gamma * (kappa * quality) + (1 - gamma) * (the margin of the clip's own class).",
        (
            (lambda q, m, y, g, k: _weighted_mean(k * q, m[y], 1 - g),
             "Gamma is swapped: it belongs to the quality margin, 1 - gamma to the class margin."),
            (lambda q, m, y, g, k: _weighted_mean(q, m[y], g),
             "Kappa is missing: a quality of 1 means a margin of kappa radians, not of one radian."),
            (lambda q, m, y, g, k: _weighted_mean(k * (1 - q), m[y], g),
             "The quality is inverted: in QLung better audio gets the *larger* margin (in AdaFace, the smaller "
             "angle)."),
            (lambda q, m, y, g, k: k * q + m[y],
             "You added both margins: gamma and 1 - gamma make a weighted mean of them."),
            (lambda q, m, y, g, k: _weighted_mean(k * q, m.flip(0)[y], g),
             "The class margins are in the wrong order: index them with the clip's own class."),
        ),
    ),
    "margin-9": Exercise(
        _qlung_loss, ((_COS, _Y, _M, 37.0, 15.0, 0.4), (_COS, torch.tensor([0, 1, 2]), _M, 20.0, 10.0, 1.5)),
        "Both terms use the same cosines: one at a large scale without a margin, one at a smaller scale with it.",
        "cross_entropy(scale_cls * cosine) + lam * cross_entropy(angular_margin_logits(..., scale_margin)).",
        (
            (lambda c, y, m, a, d, k: _qlung_loss(c, y, m, d, a, k),
             "The scales are swapped: scale_cls belongs to the classifier, scale_margin to the margin term."),
            (lambda c, y, m, a, d, k: _qlung_loss(c, y, m, a, a, k),
             "Both terms have the scale of the classifier; the margin term has a scale of its own."),
            (lambda c, y, m, a, d, k: _qlung_loss(c, y, m, 1.0, d, k), "The scale of the classifier term is missing."),
            (lambda c, y, m, a, d, k: _qlung_loss(c, y, m, a, d, 1.0), "Lambda is missing: it weighs the margin term."),
            (lambda c, y, m, a, d, k: _qlung_loss(c, y, torch.zeros_like(m), a, d, k),
             "There is no margin in your second term."),
            (lambda c, y, m, a, d, k: _qlung_loss(c, y, -m, a, d, k),
             "The sign of the margin is wrong: your second term is easier than without a margin."),
        ),
    ),
    "margin-10": Exercise(
        _angle_gradient, ((_THETA, 0.3, 15.0, 0.2), (_THETA, 0.0, 5.0, -0.5)),
        "Two factors: 1 - q is small once the loss is sure of the clip; sin(theta + m) is how fast the cosine falls.",
        "Chain rule: dL/dlogit = -(1 - q), with q the probability of the target; the logit scale * cos(theta + m) has "
        "slope -scale * sin(theta + m).",
        (
            (lambda t, m, s, o: -_angle_gradient(t, m, s, o),
             "The sign is wrong: a larger angle means a larger loss, so the gradient is positive."),
            (lambda t, m, s, o: _angle_gradient(t, m, s, o) / s,
             "The scale is missing: it multiplies the slope as well as the logit."),
            (lambda t, m, s, o: _angle_gradient(t, 0.0, s, o),
             "There is no margin in your gradient: use theta + margin in q and in the sine."),
            (lambda t, m, s, o: s * torch.sigmoid(s * (torch.cos(t + m) - o)) * torch.sin(t + m),
             "You used q instead of 1 - q: a clip that is already right would get the largest gradient."),
            (lambda t, m, s, o: _angle_gradient(t, math.radians(m), s, o),
             "The margin is in radians already."),
        ),
    ),
}  # fmt: skip
