"""The methods of the study: which head, and which loss."""

import torch
from torch import nn
from torch.nn import functional as F

from . import losses as margins
from .logits import angular_margin_logits
from .losses import QLungLoss

# Published losses, by themselves: at the scale of the angular head and with their authors' margins.
PUBLISHED = ("arcface", "cosface", "ldam", "logit_adjustment", "magface", "adaface")
# method -> (head, margin). The paper's: L_cls with that head + lambda L_DFAM with that margin, accumulating as in its
# Table 3.
METHODS = {
    "ce": ("linear", "none"),
    "ce_weighted": ("linear", "none"),
    "angular": ("angular", "none"),
    "fixed": ("linear", "fixed"),
    "quality": ("linear", "quality"),
    "class": ("linear", "quality+class"),
    "qlung": ("angular", "quality+class"),
} | {name: ("angular", name) for name in PUBLISHED}
MAGFACE_NORMS, MAGFACE_PENALTY = (1.0, 11.0), 3.5  # a tenth of theirs: norms begin near 3 here; the same penalty


class Objective(nn.Module):
    """The loss of one method; ``forward`` gives it, L_cls alone and the angular margin [shape=(B,), rad]."""

    def __init__(self, config, counts):
        super().__init__()
        c, self.config, self.kind = config, config, METHODS[config.method][1]
        self.qlung = QLungLoss(
            counts, c.scale_cls, c.scale_margin, c.lam, 1.0 if self.kind == "quality" else c.gamma, c.kappa,
            c.class_target,
        )  # fmt: skip
        weights = torch.as_tensor(counts).sum() / (4 * torch.as_tensor(counts)) if c.method == "ce_weighted" else None
        self.register_buffer("weights", weights)
        self.register_buffer("root_margin", margins.root_margin(counts))
        self.register_buffer("log_prior", margins.log_prior(counts))

    def forward(self, logits, cosine, norm, target, aqs):
        plain, zero = F.cross_entropy(logits, target, self.weights), torch.zeros_like(aqs)
        if self.kind == "none":
            return plain, plain, zero
        if self.kind in ("fixed", "quality", "quality+class"):
            margin = zero + self.config.fixed_margin if self.kind == "fixed" else self.qlung.margin(target, aqs)
            shifted = angular_margin_logits(cosine, target, margin, self.config.scale_margin)
            return plain + self.config.lam * F.cross_entropy(shifted, target), plain, margin
        margin, drop, add, penalty = zero, 0.0, 0.0, 0.0
        match self.kind:
            case "arcface":
                margin = zero + 0.5
            case "cosface":
                drop = 0.35
            case "ldam":
                drop = self.root_margin[target]
            case "logit_adjustment":
                add = self.log_prior
            case "magface":
                margin = margins.magface_margin(norm, MAGFACE_NORMS)
                penalty = MAGFACE_PENALTY * margins.magface_penalty(norm, MAGFACE_NORMS).mean()
            case "adaface":
                margin, drop = margins.adaface_margins(norm)
        shifted = angular_margin_logits(cosine, target, margin, self.config.scale_cls, drop)
        return F.cross_entropy(shifted + add, target) + penalty, plain, margin.detach()
