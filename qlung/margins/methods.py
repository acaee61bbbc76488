"""The methods of the study: per method a title, a head, a margin and the loss that trains it."""

from collections import namedtuple
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import losses

# What a loss is computed from; ``logits`` [B, C] are the head's, ``norm`` [B] are the lengths of the features.
Batch = namedtuple("Batch", "logits cosine norm target aqs")


class Method(NamedTuple):
    """One method of the study."""

    title: str  # in tables and figures
    head: str  # what predicts, and the first term's logits: "linear", w^T x + b; or "angular", s_a cos theta
    margin: str  # what it depends on
    loss: Callable[["Objective", Batch], Tensor]  # a scalar: which function of `losses`, with which arguments
    # The angle [rad] that this loss adds to theta_y, for the history
    angle: Callable[["Objective", Batch], Tensor | float] = lambda run, batch: 0.0


def _cross_entropy(run, b):
    return F.cross_entropy(b.logits, b.target, run.class_weights)


def _fixed(run, b):
    c = run.config
    return losses.qlung(b.cosine, b.target, c.fixed_margin, b.logits, c.scale_cls, c.scale_margin, c.lam)


def _qlung(run, b):
    return run.qlung(b.cosine, b.target, b.aqs, b.logits)


def _qlung_angle(run, b):
    return run.qlung.margin(b.target, b.aqs)


# Rows of the paper's Table 3, each adding to the one before; the config's ``head`` may change theirs.
PAPER = {
    "ce": Method("CE", "linear", "none", _cross_entropy),
    "ce_weighted": Method("weighted CE", "linear", "none", _cross_entropy),
    "angular": Method("angular classifier", "angular", "none", _cross_entropy),
    "fixed": Method("+ fixed margin", "linear", "fixed", _fixed, lambda run, b: run.config.fixed_margin),
    "quality": Method("+ quality margin", "linear", "quality", _qlung, _qlung_angle),
    "class": Method("+ class margin", "linear", "quality+class", _qlung, _qlung_angle),
    "qlung": Method("QLung", "angular", "quality+class", _qlung, _qlung_angle),
}
# Published losses, by themselves: at the scale of the angular head and with their authors' margins. MagFace's lengths
# are a tenth of theirs, since features begin near length 3 here, and so is lambda_g: its penalty stays the same.
MAGFACE_NORMS, MAGFACE_PENALTY = (1.0, 11.0), 3.5
PUBLISHED = {
    "arcface": Method("ArcFace", "angular", "arcface", lambda run, b:
        losses.arcface(b.cosine, b.target, 0.5, run.scale), lambda run, b: 0.5),
    "cosface": Method("CosFace", "angular", "cosface", lambda run, b:
        losses.cosface(b.cosine, b.target, 0.35, run.scale)),
    "ldam": Method("LDAM", "angular", "ldam", lambda run, b:
        losses.ldam(b.cosine, b.target, run.counts, scale=run.scale)),
    "logit_adjustment": Method("logit adjustment", "angular", "logit_adjustment", lambda run, b:
        losses.logit_adjustment(b.cosine, b.target, run.counts, scale=run.scale)),
    "magface": Method("MagFace", "angular", "magface", lambda run, b:
        losses.magface(b.cosine, b.target, b.norm, run.scale, MAGFACE_NORMS, penalty=MAGFACE_PENALTY),
        lambda run, b: losses.magface_margin(b.norm, MAGFACE_NORMS)),
    "adaface": Method("AdaFace", "angular", "adaface", lambda run, b:
        losses.adaface(b.cosine, b.target, b.norm, scale=run.scale), lambda run, b: losses.adaface_margins(b.norm)[0]),
}  # fmt: skip
METHODS = PAPER | PUBLISHED


class Objective(nn.Module):
    """The loss of one run: its method's row in METHODS, with the run's settings and class counts."""

    def __init__(self, config, counts):
        super().__init__()
        c, self.config, self.counts, self.method = config, config, list(counts), METHODS[config.method]
        gamma, self.scale = 1.0 if self.method.margin == "quality" else c.gamma, c.scale_cls
        self.qlung = losses.QLungLoss(counts, c.scale_cls, c.scale_margin, c.lam, gamma, c.kappa, c.class_target)
        counts = torch.as_tensor(counts)
        weights = counts.sum() / (len(counts) * counts) if c.method == "ce_weighted" else None
        self.register_buffer("class_weights", weights)

    def forward(self, logits, cosine, norm, target, aqs) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, its cross-entropy term for the history, margin [shape=(B,), rad]); only the loss has a gradient."""
        batch = Batch(logits, cosine, norm, target, aqs)
        loss = self.method.loss(self, batch)
        with torch.no_grad():
            return loss, _cross_entropy(self, batch), torch.zeros_like(aqs) + self.method.angle(self, batch)
