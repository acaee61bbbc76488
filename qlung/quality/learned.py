"""Quality as people judge it: small linear models of what they can hear, kept as plain numbers.

A model is a logistic regression on ``indicators.band_features`` ("bands") or on the level-normalised recording's
AudioSet embedding ("embedding"). ``python -m qlung.quality.learned DATA`` fits the two that come with the package on
SPRSound's training recordings, against its physicians' Poor Quality label, and writes them to
``qlung/quality/models/*.json``.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from .. import backbones
from ..audio import frontends
from ..cache import code_version
from ..errors import QualityError
from . import indicators

HOME = Path(__file__).parent / "models"
STRENGTH = {"bands": 0.3, "embedding": 0.01}  # inverse of the penalty, by grouped folds on SPRSound train


@dataclasses.dataclass(frozen=True)
class LevelledEmbedding(backbones.Embedded):
    """mn04's AudioSet embedding of the clip at -20 dBFS without its mean, so that gain tells nothing."""

    code: str = dataclasses.field(default_factory=lambda: code_version("audio", "backbones", "quality"))

    def __call__(self, waveform: Tensor) -> Tensor:
        """Waveforms [B, n] -> embeddings [B, 384]."""
        x = waveform - waveform.mean(-1, keepdim=True)
        return super().__call__(0.1 * x / x.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-8))


def extract_features(corpus, kind: str) -> np.ndarray:
    """What a model of that kind hears of every event, cached: [events, 20] ("bands") or [events, 384] ("embedding").

    NaN in a row: the clip is silent, and nothing can be said.
    """
    if kind not in STRENGTH:
        raise QualityError(f"unknown kind '{kind}' of learned quality: choose from {', '.join(STRENGTH)}")
    bands = indicators.measure(corpus)[indicators.FEATURES].to_numpy()
    if kind == "bands":
        return bands
    heard = np.array(frontends.extract(corpus, LevelledEmbedding("mn04_levelled", 32000)), dtype=float)
    heard[np.isnan(bands).any(1)] = np.nan
    return heard


@dataclasses.dataclass(frozen=True)
class LinearQuality:
    """logit = bias + weight . (x - mean) / scale; more is better. Gain does not change it.

    Attributes
    ----------
    kind : {"bands", "embedding"}
    seen : str
        Whose labels it was fitted on. Scores on that corpus are no longer out-of-distribution.
    mean, scale, weight : tuple of float
    bias : float
    """

    kind: str
    seen: str
    mean: tuple
    scale: tuple
    weight: tuple
    bias: float

    def __call__(self, heard: np.ndarray) -> np.ndarray:
        """Logit of good quality of each row of ``hear``; NaN where it is NaN."""
        return self.bias + (heard - np.array(self.mean)) / np.array(self.scale) @ np.array(self.weight)

    def to_json(self) -> str:
        """Plain numbers, six digits of each."""
        plain = dataclasses.asdict(self)
        for name in ("mean", "scale", "weight"):
            plain[name] = [float(f"{x:.6g}") for x in plain[name]]
        return json.dumps(plain | {"bias": float(f"{self.bias:.6g}")}, indent=None) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "LinearQuality":
        """The model whose ``to_json`` this is.

        Raises
        ------
        QualityError
            If it is something else.
        """
        try:
            told = json.loads(text)
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in told.items()})
        except (TypeError, ValueError, AttributeError) as error:
            raise QualityError(f"not a learned quality model: {error}; `make models` fits them again") from error


def fit(heard: np.ndarray, good, kind: str, seen: str, strength: float | None = None) -> LinearQuality:
    """Fit a model on rows of ``hear`` and whether each is of good quality; both sides weigh the same.

    Raises
    ------
    QualityError
        If fewer than two rows are good, or poor.
    """
    good, known = np.asarray(good, dtype=bool), np.isfinite(heard).all(1)
    x, y = heard[known], good[known]
    if min(y.sum(), (~y).sum()) < 2:
        raise QualityError(f"quality is learned from good and poor recordings, there are {y.sum()} and {(~y).sum()}")
    mean, scale = x.mean(0), x.std(0)
    scale[scale == 0] = 1
    strength = STRENGTH[kind] if strength is None else strength
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=3000).fit((x - mean) / scale, y)
    return LinearQuality(kind, seen, *map(tuple, (mean, scale, model.coef_[0])), float(model.intercept_[0]))


def out_of_fold(heard, good, patient, kind: str, strength=None, folds: int = 5, seed: int = 1) -> np.ndarray:
    """Logit of every row by a model that saw none of its patient's recordings. NaN rows stay NaN.

    The features and STRENGTH were chosen on the split of seed 0: report another.
    """
    good, out = np.asarray(good, dtype=bool), np.full(len(heard), np.nan)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, held in split.split(heard, good, np.asarray(patient)):
        out[held] = fit(heard[train], good[train], kind, "folds", strength)(heard[held])
    return out


def typicality(heard: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Unsupervised: minus the Mahalanobis distance to the reference rows (default: the rows themselves), no label used.

    The covariance is shrunk by a tenth of its mean variance, so that 384 dimensions do not need as many recordings.
    """
    reference = heard if reference is None else reference
    known = reference[np.isfinite(reference).all(1)]
    centre, spread = known.mean(0), known.std(0).clip(1e-9)
    z = (known - centre) / spread
    inverse = np.linalg.inv(0.9 * np.cov(z.T) + 0.1 * np.eye(z.shape[1]))
    x = (heard - centre) / spread
    return -np.sqrt(np.einsum("ij,jk,ik->i", x, inverse, x))


def load(name: str) -> LinearQuality:
    """A model that comes with the package: "learned_cheap", "learned_embedding" or "clean_cheap"."""
    path = HOME / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in HOME.glob("*.json")))
        raise QualityError(f"there is no learned quality model '{name}': choose from {known}")
    return LinearQuality.from_json(path.read_text())


def train_on_people(sprsound, kind: str) -> LinearQuality:
    """Fit on SPRSound's training recordings, first 8 s of each, against the Poor Quality label."""
    whole = indicators.whole_recordings(sprsound.select("train"))
    return fit(extract_features(whole, kind), whole.recordings["quality_label"] == "good", kind, "sprsound train")


def train_on_damage(corpus, clips: int = 300) -> LinearQuality:
    """The clean variant: fit on known damage to ``clips`` training clips of the corpus, and on nobody's judgement.

    Undamaged and lightly damaged clips (step 1) count as good, heavily damaged ones (steps 4 and 5) as poor.
    """
    from ..audio import degrade
    from . import stress

    table = stress.severity_table(degrade.sample(corpus.select("train"), clips))
    clear = table[table["step"].isin((0, 1, 4, 5)) & (table["kind"] != "gain")]
    return fit(
        clear[indicators.FEATURES].to_numpy(), clear["step"] < 2, "bands", f"known damage to {corpus.name} train"
    )


def main(data: str) -> None:
    """Fit the three models on the real corpora under ``data`` and write them into the package."""
    from ..corpora import load_corpus

    sprsound = load_corpus("sprsound", data)
    HOME.mkdir(exist_ok=True)
    models = {f"learned_{name}": train_on_people(sprsound, kind) for name, kind in
              (("cheap", "bands"), ("embedding", "embedding"))}  # fmt: skip
    models["clean_cheap"] = train_on_damage(load_corpus("icbhi", data, "sc"))
    for name, model in models.items():
        (HOME / f"{name}.json").write_text(model.to_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
