"""Cosines, labels, quality and class counts -> loss: the one function every margin goes through, and its losses.

Comes in: cosines [B, C] between features and prototypes. Goes out: a scalar loss. `methods` has one row per method of
the study. Notebook 03.
"""

from .logits import AngularClassifier, angular_margin_logits
from .losses import (
    QLungLoss,
    adaface_margins,
    class_margin,
    log_prior,
    magface_margin,
    magface_penalty,
    root_margin,
    weighted_cross_entropy,
)  # fmt: skip
from .methods import METHODS, Objective

__all__ = [
    "METHODS", "AngularClassifier", "Objective", "QLungLoss", "adaface_margins", "angular_margin_logits",
    "class_margin", "log_prior", "magface_margin", "magface_penalty", "root_margin", "weighted_cross_entropy",
]  # fmt: skip
