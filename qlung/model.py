"""What a method is: its encoder and class weights, its objective, and its predictions."""

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from . import backbones, features, margins
from .margins import AngularClassifier, QLungLoss, angular_margin_logits

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


class Model(nn.Module):
    """Encoder and class weights; gives cosines and linear logits of the same weights."""

    def __init__(self, config):
        super().__init__()
        self.encoder = backbones.build_backbone(config.backbone, config.pretrained)
        self.classifier = AngularClassifier(self.encoder.dim, 4)
        self.bias = nn.Parameter(torch.zeros(4))
        self.head, self.scale = config.head or METHODS[config.method][0], config.scale_cls

    def forward(self, x):
        """(logits for L_cls and inference [B, 4], cosines [B, 4], norms of the embeddings [B])."""
        embedding = self.encoder(x).float()
        with torch.autocast(x.device.type, enabled=False):  # bf16 has three digits: too few for an angle
            cosine = self.classifier(embedding)
            linear = F.linear(embedding, self.classifier.prototypes, self.bias)
        return (self.scale * cosine if self.head == "angular" else linear), cosine, embedding.norm(dim=1)


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


@torch.inference_mode()
def outputs(model: Model, x: np.ndarray, batch_size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits [n, 4], cosines [n, 4]) of features, in evaluation mode and float32."""
    model.eval()
    device = next(model.parameters()).device
    parts = (torch.from_numpy(x[i : i + batch_size].astype(np.float32)) for i in range(0, len(x), batch_size))
    logits, cosine, _ = (torch.cat(out).cpu() for out in zip(*(model(part.to(device)) for part in parts), strict=True))
    return logits, cosine


def predict(model: Model, corpus) -> pd.DataFrame:
    """event_id, label, predicted, probabilities p0..p3 and cosines c0..c3 to the prototypes of every event.

    No margin and no quality is used. Where training had a linear head, it predicts; the cosines are to its weights.
    """
    logits, cosine = outputs(model, features.extract(corpus, model.encoder.front_end))
    values = torch.cat([logits.softmax(1), cosine], 1).numpy()
    out = corpus.events[["event_id", "recording_id", "label"]].reset_index(drop=True)
    names = [f"{letter}{k}" for letter in "pc" for k in range(4)]
    return out.assign(predicted=values[:, :4].argmax(1), **dict(zip(names, values.T, strict=True)))
