"""The losses of the study, QLung's and the published ones, as functions of cosines; and the margins they use.

Every loss is the mean over the batch, a scalar Tensor with a gradient. ``cosine`` is a Tensor [B, C] in [-1, 1];
``target`` holds B class indices. Computed in float32 at least. MarginError if an argument is out of range.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MarginError
from .logits import check_batch, check_scales, per_clip, shift_target


def softmax(cosine: Tensor, target: Tensor, scale: float = 37.0) -> Tensor:
    """Normalised softmax: L = CE(s cos theta), no margin (NormFace, arXiv 1704.06369)."""
    return _cross_entropy(*check_batch(cosine, target), 0.0, scale)


def arcface(cosine: Tensor, target: Tensor, margin: float = 0.5, scale: float = 37.0) -> Tensor:
    """ArcFace: the target's logit is s cos(theta_y + m), m [rad] (arXiv 1801.07698).

    Examples
    --------
    >>> arcface(torch.tensor([[0.9, 0.1], [0.2, 0.4]]), torch.tensor([0, 1]), scale=10.0)
    tensor(1.4731)
    """
    return _cross_entropy(*check_batch(cosine, target), margin, scale)


def cosface(cosine: Tensor, target: Tensor, margin: float = 0.35, scale: float = 37.0) -> Tensor:
    """CosFace: the target's logit is s (cos theta_y - m), m in units of the cosine (arXiv 1801.09414)."""
    return _cross_entropy(*check_batch(cosine, target), 0.0, scale, margin)


def ldam(cosine: Tensor, target: Tensor, counts, largest: float = 0.5, scale: float = 37.0) -> Tensor:
    """LDAM: the target's logit is s (cos theta_y - `root_margin`(counts)[y]) (arXiv 1906.07413).

    ``counts`` are the training clips per class [shape=(C,)]; the rarest class gets the margin ``largest``.
    """
    cosine, target = check_batch(cosine, target, len(counts))
    return _cross_entropy(cosine, target, 0.0, scale, root_margin(counts, largest).to(cosine.device)[target])


def logit_adjustment(cosine: Tensor, target: Tensor, counts, tau: float = 1.0, scale: float = 37.0) -> Tensor:
    """Logit adjustment: L = CE(s cos theta + `log_prior`(counts, tau)) (arXiv 2007.07314).

    ``counts`` are the training clips per class [shape=(C,)].
    """
    cosine, target = check_batch(cosine, target, len(counts))
    return F.cross_entropy(shift_target(cosine, target, 0.0, scale) + log_prior(counts, tau).to(cosine), target)


def magface(cosine, target, norm, scale=37.0, norms=(10.0, 110.0), margins=(0.45, 0.8), penalty=35.0) -> Tensor:
    """MagFace: ArcFace with `magface_margin`(norm) + penalty * mean `magface_penalty`(norm) (arXiv 2103.06627).

    Parameters
    ----------
    norm : Tensor [shape=(B,)]
        Lengths of the features, with their gradient: the penalty lengthens them.
    norms : (float, float)
        Lengths between which the margin rises. They fit embeddings of the length that face recognition has.
    margins : (float, float) [rad]
        Least and largest margin.
    penalty : float
        Weight of the regulariser, lambda_g.
    """
    cosine, target = check_batch(cosine, target)
    norm = per_clip("norm", norm, target, cosine.dtype, math.inf)
    loss = _cross_entropy(cosine, target, magface_margin(norm, norms, margins), scale)
    return loss + penalty * magface_penalty(norm, norms).mean()


def adaface(cosine, target, norm, m=0.4, h=0.333, scale=37.0) -> Tensor:
    """AdaFace: angle and cosine margin from the feature's length ``norm`` [shape=(B,)], `adaface_margins`."""
    cosine, target = check_batch(cosine, target)
    angle, drop = adaface_margins(per_clip("norm", norm, target, cosine.dtype, math.inf), m, h)
    return _cross_entropy(cosine, target, angle, scale, drop)


def qlung(cosine, target, margin, logits=None, scale_cls=37.0, scale_margin=15.0, lam=0.4) -> Tensor:
    """The paper's two terms for a given margin: L = CE(s_a cos theta) + lam CE(s_d cos(theta_y + margin)).

    Parameters
    ----------
    margin : Tensor [shape=(B,), rad] or float
        `QLungLoss.margin` for QLung; one number for the "fixed margin" of Table 3.
    logits : Tensor [shape=(B, C)], optional
        Of a linear layer, in place of s_a cos theta in the first term: the rows of Table 3 with a linear head.
    """
    cosine, target = check_batch(cosine, target)
    check_scales(scale_cls=scale_cls)
    logits = scale_cls * cosine if logits is None else logits
    if logits.shape != cosine.shape:
        raise MarginError(f"logits must have the cosines' shape {tuple(cosine.shape)}, not {tuple(logits.shape)}")
    return F.cross_entropy(logits, target) + lam * _cross_entropy(cosine, target, margin, scale_margin)


class QLungLoss(nn.Module):
    """The paper's loss: L = CE(s_a cos) + lam * CE(s_d cos(theta_y + m_d)), m_d = gamma * m_q + (1 - gamma) * m_c.

    m_q = kappa * AQS rises with the clip's quality; m_c = `class_margin` is larger for a rare class.

    Parameters
    ----------
    counts : Tensor, array or list [shape=(C,)]
        Training clips per class.
    scale_cls, scale_margin, lam, gamma, kappa, target : float
        s_a, s_d, lambda, gamma, kappa and m_target [rad] of the paper.

    Notes
    -----
    ``forward(cosine[B, C], target[B], aqs[B], logits[B, C] = None)`` gives a scalar. ``aqs`` in [0, 1] is an array as
    `QualityScorer.score` gives it, a tensor, a list, or one number for all clips. A clip without a quality must
    already carry the neutral one (``QualityScorer.score`` does that). ``logits``: see `qlung`. MarginError if a
    parameter is out of range, or the rarest class's margin could pass pi.

    Examples
    --------
    >>> loss = QLungLoss(counts=[2063, 1215, 501, 363])
    >>> loss(torch.tensor([[0.9, 0.1, 0.0, -0.2]]), [0], aqs=0.5)
    tensor(1.1635e-05)
    """

    def __init__(self, counts, scale_cls=37.0, scale_margin=15.0, lam=0.4, gamma=0.5, kappa=0.5, target=0.2):
        super().__init__()
        check_scales(scale_cls=scale_cls, scale_margin=scale_margin)
        if not (0 <= gamma <= 1 and all(0 <= value < math.inf for value in (lam, kappa, target))):
            wanted = "QLungLoss wants 0 <= gamma <= 1, and lam, kappa, target >= 0"
            raise MarginError(f"{wanted}: {gamma=}, {lam=}, {kappa=}, {target=}")
        self.scale_cls, self.scale_margin, self.lam, self.gamma, self.kappa = scale_cls, scale_margin, lam, gamma, kappa
        self.register_buffer("class_margin", class_margin(counts, target))
        largest = gamma * kappa + (1 - gamma) * float(self.class_margin.max())
        if largest > math.pi:
            raise MarginError(f"the rarest class would get a margin of {largest:.2f} rad, over pi: lower target")

    def margin(self, target: Tensor, aqs) -> Tensor:
        """m_d = gamma m_q + (1 - gamma) m_c of each clip [shape=(B,), rad]; the quality margin m_q is kappa * AQS."""
        aqs = per_clip("aqs", aqs, target, self.class_margin.dtype, 1.0, hint="(QualityScorer.score gives such values)")
        by_class = self.class_margin.to(target.device)[target]
        return torch.add((1 - self.gamma) * by_class, aqs, alpha=self.gamma * self.kappa)

    def forward(self, cosine: Tensor, target: Tensor, aqs, logits: Tensor | None = None) -> Tensor:
        cosine, target = check_batch(cosine, target, len(self.class_margin))
        return qlung(cosine, target, self.margin(target, aqs), logits, self.scale_cls, self.scale_margin, self.lam)


def _cross_entropy(cosine: Tensor, target: Tensor, margin, scale: float, cosine_margin=0.0) -> Tensor:
    """Cross-entropy of `angular_margin_logits`, of a batch that was checked."""
    return F.cross_entropy(shift_target(cosine, target, margin, scale, cosine_margin), target)


def class_margin(counts: Tensor, target: float = 0.2) -> Tensor:
    """Log-scaled class margin: rarer classes get a larger angle (QLung, claim C4).

    m_c = -s_c log(n_c / N) with s_c = target / log C, so a class with frequency 1/C gets exactly ``target``.

    Parameters
    ----------
    counts : Tensor [shape=(C,)]
        Training clips per class, each > 0. MarginError if a class has none (its margin would be infinite), or there are
        fewer than two classes.
    target : float [rad]
        Margin of a perfectly balanced class.

    Returns
    -------
    margin : Tensor [shape=(C,), rad]

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


def _log_frequency(counts) -> Tensor:
    """log(n_c / N) [shape=(C,)] in float64."""
    counts = torch.as_tensor(counts, dtype=torch.float64)
    if counts.ndim != 1 or len(counts) < 2:
        raise MarginError(f"class counts must have shape (C,), C >= 2, not {tuple(counts.shape)}")
    if not bool((counts > 0).all() & counts.isfinite().all()):
        raise MarginError(f"every class needs a clip, counts are {counts.tolist()}; drop the empty class")
    return (counts / counts.sum()).log()
