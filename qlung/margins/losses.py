"""The margins of QLung and of the published losses, and the QLung loss made from them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MarginError
from .logits import _check_shapes, _shift_target, _wide, _within


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy, each clip counting with its ``weight`` [shape=(B,), >= 0] where given."""
    if weight is None:
        return F.cross_entropy(logits, target)
    if weight.shape != target.shape:
        raise MarginError(f"weight must hold one value per clip, {tuple(target.shape)}, not {tuple(weight.shape)}")
    total = weight.sum()
    if not torch.compiler.is_compiling() and not (_within(weight, 0.0, math.inf) and 0 < total.item() < math.inf):
        raise MarginError("weights must be >= 0 with a positive, finite sum; drop the batch if no clip counts")
    return (F.cross_entropy(logits, target, reduction="none") * weight).sum() / total


def class_margin(counts: Tensor, target: float = 0.2) -> Tensor:
    """Log-scaled class margin: rarer classes get a larger angle (QLung, claim C4).

    m_c = -s_c log(n_c / N) with s_c = target / log C, so a class with frequency 1/C gets exactly ``target``.

    Parameters
    ----------
    counts : Tensor [shape=(C,)]
        Training clips per class, each > 0.
    target : float [rad]
        Margin of a perfectly balanced class.

    Returns
    -------
    margin : Tensor [shape=(C,), rad]

    Raises
    ------
    MarginError
        If a class has no clips (its margin would be infinite) or there are fewer than two classes.

    Examples
    --------
    >>> class_margin(torch.tensor([2063, 1215, 501, 363]))
    tensor([0.1006, 0.1769, 0.3047, 0.3512])
    """
    log_frequency = _log_frequency(counts)
    return (-target / math.log(len(log_frequency)) * log_frequency).float()


def root_margin(counts: Tensor, largest: float = 0.5) -> Tensor:
    """LDAM's class margin, proportional to n_c^(-1/4), the rarest class getting ``largest`` (arXiv 1906.07413).

    Subtracted from the cosine it is LDAM; added to the angle it is an angular margin of the same shape.

    Examples
    --------
    >>> root_margin(torch.tensor([2063, 1215, 501, 363]))
    tensor([0.3238, 0.3697, 0.4613, 0.5000])
    """
    log_frequency = _log_frequency(counts)
    return (largest * ((log_frequency.min() - log_frequency) / 4).exp()).float()


def log_prior(counts: Tensor, tau: float = 1.0) -> Tensor:
    """Logit adjustment: ``tau * log(n_c / N)`` [shape=(C,), nats], added to every logit in training (arXiv 2007.07314).

    Between y and j it asks for a margin of tau * log(n_j / n_y): negative where y is the more frequent.
    """
    return (tau * _log_frequency(counts)).float()


def magface_margin(norm: Tensor, norms=(10.0, 110.0), margins=(0.45, 0.8)) -> Tensor:
    """MagFace's margin [shape=(B,), rad]: rises linearly with the feature norm between two bounds (2103.06627)."""
    fraction = (norm.clamp(*norms) - norms[0]) / (norms[1] - norms[0])
    return margins[0] + fraction * (margins[1] - margins[0])


def magface_penalty(norm: Tensor, norms=(10.0, 110.0)) -> Tensor:
    """MagFace's regulariser g(a) = 1/a + a/u^2 [shape=(B,)], least at the upper norm u: it pushes norms up."""
    norm = norm.clamp(*norms)
    return 1 / norm + norm / norms[1] ** 2


def adaface_margins(norm: Tensor, m: float = 0.4, h: float = 0.333) -> tuple[Tensor, Tensor]:
    """AdaFace's margins of each clip: (angle [B, rad] = -m z, cosine margin [B] = m z + m), |z| <= 1 (2204.00964).

    z is the feature norm standardised over this batch, times h: the angle *falls* with the norm. Unlike the original,
    no running statistics (a batch of one turns them into NaN); here a batch of one has z = 0, which is CosFace.
    """
    norm = norm.detach()
    z = ((norm - norm.mean()) / (norm.std(correction=0) + 1e-3) * h).clamp(-1, 1)
    return -m * z, m + m * z


class QLungLoss(nn.Module):
    """The paper's loss: L = CE(s_a cos) + lam * CE(s_d cos(theta_y + m_d)), m_d = gamma * m_q + (1 - gamma) * m_c.

    Parameters
    ----------
    counts : Tensor [shape=(C,)]
        Training clips per class.
    scale_cls, scale_margin, lam, gamma, kappa, target : float
        s_a, s_d, lambda, gamma, kappa and m_target [rad] of the paper.

    Notes
    -----
    ``forward(cosine[B, C], target[B], aqs[B], weight[B] = None)`` gives a scalar; aqs in [0, 1]. A clip without a
    quality must already carry the neutral one (``QualityScorer.score`` does that). MarginError if a parameter is out
    of range, or the rarest class's margin could pass pi.
    """

    def __init__(self, counts, scale_cls=37.0, scale_margin=15.0, lam=0.4, gamma=0.5, kappa=0.5, target=0.2):
        super().__init__()
        if not (0 <= gamma <= 1 and 0 <= lam < math.inf and 0 <= kappa < math.inf and 0 <= target < math.inf):
            raise MarginError(
                f"QLungLoss wants 0 <= gamma <= 1, and lam, kappa, target >= 0: {gamma=}, {lam=}, {kappa=}, {target=}"
            )
        self.scale_cls, self.scale_margin, self.lam, self.gamma, self.kappa = scale_cls, scale_margin, lam, gamma, kappa
        self.register_buffer("class_margin", class_margin(counts, target))
        largest = gamma * kappa + (1 - gamma) * float(self.class_margin.max())
        if largest > math.pi:
            raise MarginError(f"the rarest class would get a margin of {largest:.2f} rad, over pi: lower target")

    def margin(self, target: Tensor, aqs: Tensor) -> Tensor:
        """m_d of each clip [shape=(B,), rad]."""
        if aqs.shape != target.shape:
            raise MarginError(f"aqs must hold one value per clip, {tuple(target.shape)}, not {tuple(aqs.shape)}")
        if not torch.compiler.is_compiling() and not _within(aqs, 0.0, 1.0):
            raise MarginError("aqs must lie in [0, 1] and be finite; QualityScorer.score gives such values")
        return torch.add((1 - self.gamma) * self.class_margin[target], aqs, alpha=self.gamma * self.kappa)

    def forward(self, cosine: Tensor, target: Tensor, aqs: Tensor, weight: Tensor | None = None) -> Tensor:
        _check_shapes(cosine, target, self.scale_cls)
        cosine = _wide(cosine)
        margin = self.margin(target, aqs)[:, None]  # within [0, pi]: the constructor saw to it
        shifted = _shift_target(cosine, target, margin, self.scale_margin)
        plain = weighted_cross_entropy(self.scale_cls * cosine, target, weight)
        return plain + self.lam * weighted_cross_entropy(shifted, target, weight)


def _log_frequency(counts) -> Tensor:
    """log(n_c / N) [shape=(C,)] in float64."""
    counts = torch.as_tensor(counts, dtype=torch.float64)
    if counts.ndim != 1 or len(counts) < 2:
        raise MarginError(f"class counts must have shape (C,), C >= 2, not {tuple(counts.shape)}")
    if not bool((counts > 0).all() & counts.isfinite().all()):
        raise MarginError(f"every class needs a clip, counts are {counts.tolist()}; drop the empty class")
    return (counts / counts.sum()).log()
