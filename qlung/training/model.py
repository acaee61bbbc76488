"""What is trained, encoder and class weights, and what it predicts."""

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from .. import backbones
from ..audio import frontends
from ..audio.degrade import levels
from ..margins import METHODS, AngularClassifier


class Model(nn.Module):
    """Encoder and class weights; gives cosines and linear logits of the same weights."""

    def __init__(self, config):
        super().__init__()
        self.encoder = backbones.build_backbone(config.backbone, config.pretrained)
        self.classifier = AngularClassifier(self.encoder.dim, 4)
        self.bias = nn.Parameter(torch.zeros(4))
        self.head, self.scale = config.head or METHODS[config.method].head, config.scale_cls

    def forward(self, x):
        """(logits for L_cls and inference [B, 4], cosines [B, 4], norms of the embeddings [B])."""
        embedding = self.encoder(x).float()
        with torch.autocast(x.device.type, enabled=False):  # bf16 has three digits: too few for an angle
            cosine = self.classifier(embedding)
            linear = F.linear(embedding, self.classifier.prototypes, self.bias)
        return (self.scale * cosine if self.head == "angular" else linear), cosine, embedding.norm(dim=1)


@torch.inference_mode()
def _in_batches(function, model: Model, x: np.ndarray, size: int = 32) -> list:
    """``function`` of ``size`` clips' features at a time, with the model in evaluation mode and float32."""
    model.eval()
    device = next(model.parameters()).device
    batches = (x[i : i + size].astype(np.float32) for i in range(0, len(x), size))
    return [function(torch.from_numpy(batch).to(device)) for batch in batches]


def outputs(model: Model, x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits [n, 4], cosines [n, 4]) of features, in evaluation mode and float32."""
    logits, cosine, _ = (torch.cat(parts).cpu() for parts in zip(*_in_batches(model, model, x), strict=True))
    return logits, cosine


def predict(model: Model, corpus) -> pd.DataFrame:
    """event_id, label, predicted, probabilities p0..p3 and cosines c0..c3 to the prototypes of every event.

    No margin and no quality is used. Where training had a linear head, it predicts; the cosines are to its weights.
    """
    logits, cosine = outputs(model, frontends.extract(corpus, model.encoder.front_end))
    values = torch.cat([logits.softmax(1), cosine], 1).numpy()
    out = corpus.events[["event_id", "recording_id", "label"]].reset_index(drop=True)
    names = [f"{letter}{k}" for letter in "pc" for k in range(4)]
    return out.assign(predicted=values[:, :4].argmax(1), **dict(zip(names, values.T, strict=True)))


def embeddings(model: Model, corpus) -> np.ndarray:
    """Embedding of every event, of unit length [shape=(n, d)], in the order of ``corpus.events``."""
    x = frontends.extract(corpus, model.encoder.front_end)
    parts = _in_batches(lambda batch: F.normalize(model.encoder(batch).float(), dim=1), model, x)
    return torch.cat(parts).cpu().numpy()


def predict_degraded(networks: dict, corpus, severities: dict) -> pd.DataFrame:
    """Predictions of finished networks for a corpus, clean ("none", severity 0) and at every level of degradation.

    The networks were trained without such degradation, and nothing is fitted to it.

    Parameters
    ----------
    networks : dict of (method, seed) -> Model
        As ``experiments.load_models`` gives them, all with the same front end.
    corpus : Corpus
    severities : dict
        Kinds and amounts as in ``SEVERITIES``.

    Returns
    -------
    DataFrame
        Per network, level and event: method, seed, kind, severity, amount, event_id, patient_id, label, predicted.
    """
    front_end = next(iter(networks.values())).encoder.front_end
    events = corpus.events[["event_id", "label"]].assign(patient_id=corpus.of_events("patient_id"))
    out = []
    for kind, severity, amount in levels(severities):
        x = frontends.extract(corpus, front_end, (kind, amount))
        for (method, seed), network in networks.items():
            keys = {"method": method, "seed": seed, "kind": kind, "severity": severity, "amount": amount}
            out.append(events.assign(**keys, predicted=outputs(network, x)[0].argmax(1).numpy()))
    return pd.concat(out, ignore_index=True)
