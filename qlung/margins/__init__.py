"""Cosines, labels, quality and class counts -> loss: the one function every margin goes through, and its losses.

Comes in: cosines [B, C] between features and prototypes. Goes out: a scalar loss. `METHODS` has one row per method of
the study. Notebook 03.
"""

from .logits import AngularClassifier, angular_margin_logits
from .losses import (
    QLungLoss,
    adaface,
    adaface_margins,
    arcface,
    class_margin,
    cosface,
    ldam,
    log_prior,
    logit_adjustment,
    magface,
    magface_margin,
    magface_penalty,
    qlung,
    root_margin,
    softmax,
)
from .methods import METHODS, Method, Objective

__all__ = [
    "METHODS", "AngularClassifier", "Method", "Objective", "QLungLoss", "adaface", "adaface_margins",
    "angular_margin_logits", "arcface", "class_margin", "cosface", "ldam", "log_prior", "logit_adjustment", "magface",
    "magface_margin", "magface_penalty", "qlung", "root_margin", "softmax",
]  # fmt: skip
