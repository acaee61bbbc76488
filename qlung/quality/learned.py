"""Learned quality: small linear models fitted on quality labels or on known degradations, kept as plain numbers.

A model is a logistic regression on ``indicators.band_features`` ("bands") or on the level-normalised recording's
AudioSet embedding ("embedding"). ``tools/fit_quality_models.py`` fits those in ``qlung/quality/models/*.json``.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .. import backbones
from ..audio import frontends
from ..cache import code_version
from . import indicators

MODELS = Path(__file__).parent / "models"
STRENGTH = {"bands": 0.3, "embedding": 0.01}  # inverse of the penalty, by grouped folds on SPRSound train


@dataclasses.dataclass(frozen=True)
class LevelledEmbedding(backbones.Embedded):
    """mn04's AudioSet embedding of the clip at -20 dBFS without its mean, so that it does not depend on gain."""

    code: str = dataclasses.field(default_factory=lambda: code_version("audio", "backbones", "quality"))

    def __call__(self, waveform: Tensor) -> Tensor:
        """Waveforms [B, n] -> embeddings [B, 384]."""
        x = waveform - waveform.mean(-1, keepdim=True)
        return super().__call__(0.1 * x / x.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-8))


def extract_features(corpus, kind: str) -> np.ndarray:
    """Input of a model of that kind per event, cached: [events, 20] ("bands") or [events, 384] ("embedding").

    A row is NaN where the clip cannot be measured (silence).
    """
    bands = indicators.measure(corpus)[indicators.FEATURES].to_numpy()
    if kind == "bands":
        return bands
    features = np.array(frontends.extract(corpus, LevelledEmbedding("mn04_levelled", 32000)), dtype=float)
    features[np.isnan(bands).any(1)] = np.nan
    return features


@dataclasses.dataclass(frozen=True)
class LinearQuality:
    """logit = bias + weight . (x - mean) / scale; more is better. Gain does not change it.

    ``kind`` is "bands" or "embedding". ``seen`` names the labels it was fitted on: scores on that corpus are no longer
    out-of-distribution. ``mean``, ``scale`` and ``weight`` have one number per feature.
    """

    kind: str
    seen: str
    mean: list
    scale: list
    weight: list
    bias: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Logit of good quality per row of `extract_features`; NaN where it is NaN."""
        return self.bias + (features - np.array(self.mean)) / np.array(self.scale) @ np.array(self.weight)


def classifier(kind: str) -> Pipeline:
    """What is fitted: standardised features -> logistic regression, good and poor recordings of equal total weight."""
    regression = LogisticRegression(C=STRENGTH[kind], class_weight="balanced", max_iter=3000)
    return make_pipeline(StandardScaler(), regression)


def load(name: str) -> LinearQuality:
    """A model that comes with the package: "learned_cheap", "learned_embedding" or "clean_cheap"."""
    return LinearQuality(**json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8")))
