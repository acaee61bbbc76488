"""Cosines, labels, quality and class counts -> loss: the one function every margin goes through, and its losses.

Comes in: cosines [B, C] between features and prototypes. Goes out: a scalar loss. `METHODS` has one row per method of
the study. Notebook 03.
"""

from .logits import AngularClassifier, angular_margin_logits
from .losses import QLungLoss, adaface, arcface, cosface, ldam, logit_adjustment, magface, qlung, softmax
from .losses import adaface_margins, class_margin, log_prior, magface_margin, magface_penalty, root_margin
from .methods import METHODS, Method, Objective
