"""Angular margins on the hypersphere: one pure function, and the QLung loss made from it.

Every loss here is softmax cross-entropy on ``scale * cos(theta)``, with an angle added to the target's theta. Losses
differ in the margin they pass, not in code.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import MarginError


class AngularClassifier(nn.Module):
    """Cosines between features and one learnt prototype per class.

    Parameters
    ----------
    dim : int
        Feature dimension d.
    n_classes : int
        C, at least 2.

    Notes
    -----
    ``forward`` maps features [B, d] to cosines [B, C] in [-1, 1]; a zero feature has cosine 0 to every prototype.
    """

    def __init__(self, dim: int, n_classes: int):
        super().__init__()
        if n_classes < 2:
            raise MarginError(f"a classifier needs at least 2 classes, not {n_classes}")
        self.prototypes = nn.Parameter(torch.empty(n_classes, dim))
        nn.init.xavier_normal_(self.prototypes)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(F.normalize(features.float(), dim=-1), F.normalize(self.prototypes.float(), dim=-1))


def class_margin(counts: Tensor, target: float = 0.2) -> Tensor:
    """Log-scaled class margin: rarer classes get a larger angle.

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

    References
    ----------
    QLung, log-scaled angular margin (claim C4).

    Examples
    --------
    >>> class_margin(torch.tensor([2063, 1215, 501, 363]))
    tensor([0.1006, 0.1769, 0.3047, 0.3512])
    """
    counts = torch.as_tensor(counts, dtype=torch.float64)
    if counts.ndim != 1 or len(counts) < 2:
        raise MarginError(f"class_margin wants counts of shape (C,) with C >= 2, not {tuple(counts.shape)}")
    if not bool((counts > 0).all() & counts.isfinite().all()):
        raise MarginError(f"class_margin: every class needs a clip, counts are {counts.tolist()}; drop the empty class")
    return (-target / math.log(len(counts)) * (counts / counts.sum()).log()).float()


def angular_margin_logits(cosine: Tensor, target: Tensor, margin: Tensor | float, scale: float) -> Tensor:
    """Logits ``scale * cos(theta)`` with ``margin`` radians added to the target's angle.

    Past theta + m = pi, where cos would rise again, the curve goes on as the parabola whose value and slope match at
    pi (C1), so the target logit never rises with theta. Where the slope d cos(theta + m) / d cos(theta) is infinite
    (theta = 0 exactly) it is held at that of theta = 1e-4 rad; every gradient is finite.

    Parameters
    ----------
    cosine : Tensor [shape=(B, C)]
        Cosines in [-1, 1]; values outside by rounding are clamped. Computed in float32 at least, inside autocast too.
    target : Tensor [shape=(B,), int64]
        Class of each clip, 0 <= target < C.
    margin : Tensor [shape=(B,) or scalar, rad]
        In [0, pi/2].
    scale : float
        s > 0.

    Returns
    -------
    logits : Tensor [shape=(B, C)]

    Raises
    ------
    MarginError
        On wrong shapes, labels or margins out of range, or a margin that is not finite.

    Examples
    --------
    >>> angular_margin_logits(torch.tensor([[0.5, 0.0]]), torch.tensor([0]), math.pi / 6, 10.0)
    tensor([[0., 0.]])
    """
    _check(cosine, target, scale)
    with torch.autocast(cosine.device.type, enabled=False):
        cosine = cosine if cosine.dtype == torch.float64 else cosine.float()
        margin = torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device).expand(len(cosine))
        if not bool(((margin >= 0) & (margin <= math.pi / 2)).all()):  # NaN compares false
            raise MarginError("margins must be finite angles in [0, pi/2] rad: were degrees passed?")
        picked = cosine.gather(1, target[:, None]).squeeze(1)
        shifted = _cos_of_sum(picked.clamp(-1, 1), margin)
        return scale * cosine.scatter(1, target[:, None], shifted[:, None])


def _cos_of_sum(c: Tensor, m: Tensor) -> Tensor:
    """cos(theta + m) for theta = acos(c), continued past pi by -1 - (theta + m - pi)^2 / 2."""
    tiny = 1e-8  # sin(1e-4)^2: below it sqrt has a gradient too large to use
    sine = ((1 - c) * (1 + c)).clamp_min(0)
    sine = torch.where(sine > tiny, sine.clamp_min(tiny).sqrt(), (sine + tiny) / (2 * math.sqrt(tiny)))
    inside = c * m.cos() - sine * m.sin()
    beyond = torch.atan2(sine, c) + m - math.pi  # > 0 once theta + m has passed pi
    extended = -1 - beyond.clamp_min(0) ** 2 / 2
    return torch.where(beyond <= 0, inside, extended)


def _check(cosine: Tensor, target: Tensor, scale: float) -> None:
    if cosine.ndim != 2 or cosine.shape[1] < 2 or not cosine.is_floating_point():
        raise MarginError(f"cosine must be floating point of shape (B, C), C >= 2, not {tuple(cosine.shape)}")
    if target.shape != cosine.shape[:1] or target.is_floating_point():
        raise MarginError(f"target must hold {len(cosine)} class indices, not {target.dtype} {tuple(target.shape)}")
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < cosine.shape[1]:
        raise MarginError(f"labels span {int(target.min())}..{int(target.max())}, classes 0..{cosine.shape[1] - 1}")
    if not (math.isfinite(scale) and scale > 0):
        raise MarginError(f"scale must be positive and finite, not {scale}")


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
    ``forward(cosine[B, C], target[B], aqs[B])`` gives a scalar; aqs in [0, 1]. A clip without a quality must already
    carry the neutral one (``QualityScorer.score`` does that).
    """

    def __init__(self, counts, scale_cls=37.0, scale_margin=15.0, lam=0.4, gamma=0.5, kappa=0.5, target=0.2):
        super().__init__()
        if not 0 <= gamma <= 1 or lam < 0 or kappa < 0:
            raise MarginError(f"QLungLoss wants 0 <= gamma <= 1, lam >= 0, kappa >= 0: {gamma=}, {lam=}, {kappa=}")
        self.scale_cls, self.scale_margin, self.lam, self.gamma, self.kappa = scale_cls, scale_margin, lam, gamma, kappa
        self.register_buffer("class_margin", class_margin(counts, target))

    def margin(self, target: Tensor, aqs: Tensor) -> Tensor:
        """m_d of each clip [shape=(B,), rad]."""
        if aqs.shape != target.shape or not bool(((aqs >= 0) & (aqs <= 1)).all()):
            raise MarginError("aqs must hold one value in [0, 1] per clip")
        return self.gamma * self.kappa * aqs + (1 - self.gamma) * self.class_margin[target]

    def forward(self, cosine: Tensor, target: Tensor, aqs: Tensor) -> Tensor:
        _check(cosine, target, self.scale_cls)
        logits = angular_margin_logits(cosine, target, self.margin(target, aqs), self.scale_margin)
        return F.cross_entropy(self.scale_cls * cosine, target) + self.lam * F.cross_entropy(logits, target)
