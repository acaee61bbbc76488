"""What is trained, encoder and class weights, and what it predicts."""

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from .. import backbones
from ..audio import frontends
from ..margins import METHODS, AngularClassifier


class Model(nn.Module):
    """Encoder and class weights; gives cosines and linear logits of the same weights."""

    def __init__(self, config):
        super().__init__()
        self.encoder = backbones.build_backbone(config.backbone, config.pretrained)
        self.classifier = AngularClassifier(self.encoder.dim, 4)
        self.classifier.prototypes.data.mul_(config.head_init)
        self.bias = nn.Parameter(torch.zeros(4))
        self.head, self.scale = config.head or METHODS[config.method].head, config.scale_cls
        self.audio = {"pad": config.pad, "band_hz": config.band_hz}

    def head_parameters(self) -> list[nn.Parameter]:
        """Class weights and bias: all that is not the encoder."""
        return [self.classifier.prototypes, self.bias]

    def features(self, corpus, degradation=("none", 0.0)) -> tuple[np.ndarray, np.ndarray | None]:
        """What the encoder takes: features of every event, and the filled share of each clip (None: all of it)."""
        front_end = self.encoder.front_end
        x = frontends.extract(corpus, front_end, degradation, **self.audio)
        return x, frontends.filled(corpus, front_end.seconds, self.audio["pad"])

    def forward(self, x, filled=None):
        """(logits for L_cls and inference [B, 4], cosines [B, 4], norms of the embeddings [B])."""
        embedding = self.encoder(x, filled).float()
        with torch.autocast(x.device.type, enabled=False):  # bf16 has three digits: too few for an angle
            cosine = self.classifier(embedding)
            linear = F.linear(embedding, self.classifier.prototypes, self.bias)
        return (self.scale * cosine if self.head == "angular" else linear), cosine, embedding.norm(dim=1)


@torch.inference_mode()
def outputs(model: Model, x: np.ndarray, filled: np.ndarray | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits [n, 4], cosines [n, 4]) of `Model.features`, in evaluation mode and float32, 32 clips at a time."""
    model.eval()
    device, out = next(model.parameters()).device, []
    for i in range(0, len(x), 32):
        part = torch.from_numpy(x[i : i + 32].astype(np.float32)).to(device)
        share = None if filled is None else torch.from_numpy(filled[i : i + 32]).to(device)
        out.append(model(part, share))
    logits, cosine, _ = (torch.cat(parts).cpu() for parts in zip(*out, strict=True))
    return logits, cosine


def predict(model: Model, corpus) -> pd.DataFrame:
    """event_id, label, predicted, probabilities p0..p3 and cosines c0..c3 to the prototypes of every event.

    No margin and no quality is used. Where training had a linear head, it predicts; the cosines are to its weights.
    Where the corpus' unit is the recording, there is one row per recording, as `per_recording` makes it.
    """
    logits, cosine = outputs(model, *model.features(corpus))
    values = torch.cat([logits.softmax(1), cosine], 1).numpy()
    out = corpus.events[["event_id", "recording_id", "label"]].reset_index(drop=True)
    out[[f"{letter}{k}" for letter in "pc" for k in range(4)]] = values
    out = per_recording(out) if corpus.unit == "recording" else out
    out.insert(3, "predicted", out[["p0", "p1", "p2", "p3"]].to_numpy().argmax(1))
    return out


def per_recording(events: pd.DataFrame) -> pd.DataFrame:
    """One row per recording, in order of appearance: means of the numbers of its events; its id is the event's, too."""
    first = events.drop_duplicates("recording_id").set_index("recording_id")
    numbers = events.select_dtypes("number").columns
    means = events.groupby("recording_id", sort=False)[numbers].mean().astype(events.dtypes[numbers])
    return first.assign(event_id=first.index, **means).reset_index()[[*events]]
