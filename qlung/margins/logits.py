"""Angular margins on the hypersphere: one pure function, and the QLung loss made from it.

Every loss here is softmax cross-entropy on ``scale * cos(theta)``, with the target made harder by a margin. Losses
differ in the margin they pass to `angular_margin_logits`, not in code:

==================  ================================  ===================================  =======================
loss                angle added to theta_y [rad]      subtracted from cos theta_y          elsewhere
==================  ================================  ===================================  =======================
normalised softmax  0                                 0
ArcFace 1801.07698  m                                 0
CosFace 1801.09414  0                                 m
LDAM                0                                 ``root_margin(counts)[y]``
logit adjustment    0                                 0                                    logits + ``log_prior``
class-log margin    ``class_margin(counts)[y]``       0
MagFace             ``magface_margin(norm)``          0                                    + ``magface_penalty``
AdaFace             ``adaface_margins(norm)[0]``      ``adaface_margins(norm)[1]``
QLung               ``QLungLoss.margin(y, aqs)``      0                                    + CE without a margin
==================  ================================  ===================================  =======================
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MarginError


class AngularClassifier(nn.Module):
    """Cosines between features of ``dim`` numbers and one learnt prototype for each of ``n_classes`` (at least 2).

    ``forward`` maps features [B, d] to cosines [B, C] in [-1, 1], in float32 at least, inside autocast too. A zero
    feature has no direction: its cosines and its gradient are 0.
    """

    def __init__(self, dim: int, n_classes: int):
        super().__init__()
        if n_classes < 2:
            raise MarginError(f"a classifier needs at least 2 classes, not {n_classes}")
        self.prototypes = nn.Parameter(torch.empty(n_classes, dim))
        nn.init.xavier_normal_(self.prototypes)

    def forward(self, features: Tensor) -> Tensor:
        features = _wide(features)
        prototypes = self.prototypes.to(features.dtype)
        with torch.autocast(features.device.type, enabled=False):  # it would multiply in half precision
            # Scaling the B x C products, not the B x d features: the same number for less memory traffic.
            return F.linear(features, prototypes * _inverse_norm(prototypes)) * _inverse_norm(features)


def angular_margin_logits(
    cosine: Tensor, target: Tensor, margin: Tensor | float, scale: float, cosine_margin: Tensor | float = 0.0
) -> Tensor:
    """Logits ``scale * cos(theta)``; the target's is ``scale * (cos(theta + margin) - cosine_margin)``.

    Where theta + margin leaves [0, pi], and cos would turn back, the curve goes on as the parabola whose value and
    slope match (C1): the target logit never rises with theta, for margins of either sign. Its slope in the cosine,
    sin(theta + m) / sin(theta), has poles at 0 and pi; within 1e-4 rad of them, where float32 cannot tell the angle
    from the pole, sin(theta) is held constant: every gradient is finite.

    Parameters
    ----------
    cosine : Tensor [shape=(B, C)]
        In [-1, 1] up to rounding. Computed in float32 at least, inside autocast too.
    target : Tensor [shape=(B,), int64]
        Class of each clip, 0 <= target < C.
    margin : Tensor [shape=(B,) or scalar, rad]
        In [-pi, pi]; above 0 makes the target harder.
    scale : float
        s > 0.
    cosine_margin : Tensor [shape=(B,) or scalar]
        In [0, 2], in units of the cosine (CosFace).

    Returns
    -------
    logits : Tensor [shape=(B, C)]

    Raises
    ------
    MarginError
        On wrong shapes, labels or margins out of range, or a margin that is not finite. Compiled graphs check shapes
        only: a look at the values would break the graph.

    Examples
    --------
    >>> angular_margin_logits(torch.tensor([[0.5, 0.0]]), torch.tensor([0]), math.pi / 3, 10.0)
    tensor([[-5.,  0.]])
    """
    _check_shapes(cosine, target, scale)
    cosine = _wide(cosine)
    margin = _column("margin", margin, cosine, -math.pi, math.pi, "radians in [-pi, pi]: were degrees passed?")
    cosine_margin = _column("cosine_margin", cosine_margin, cosine, 0.0, 2.0, "cosines in [0, 2]")
    return _shift_target(cosine, target, margin, scale, cosine_margin)


def _shift_target(cosine, target, margin, scale, cosine_margin=0.0) -> Tensor:
    """The logits, without checks; margins are [B, 1] or numbers."""
    column = target[:, None]
    picked = cosine.gather(1, column)
    shift = _cos_of_sum(picked, margin) - cosine_margin - picked
    return (scale * cosine).scatter_add_(1, column, scale * shift)  # in place: one B x C copy less


def _cos_of_sum(c: Tensor, m: Tensor | float) -> Tensor:
    """cos(theta + m) for theta = acos(c); beyond [0, pi] it goes on as +-(1 + excess^2 / 2)."""
    sine = ((1 - c) * (1 + c)).clamp_min(1e-8).sqrt()  # 1 - c^2 cancels near +-1; acos is infinitely steep there
    angle = torch.atan2(sine, c) + m
    inside = angle.clamp(0, math.pi)
    excess = angle - inside
    return inside.cos() * (1 + excess * excess / 2)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _inverse_norm(x: Tensor) -> Tensor:
    """1 / |x| of each row, and 0 with gradient 0 where |x| is 0."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.masked_fill(norm == 0, math.inf).reciprocal()


def _column(name: str, margin: Tensor | float, cosine: Tensor, low: float, high: float, want: str) -> Tensor | float:
    """The margin, range checked: a number, or [B, 1] on the cosines' device."""
    if isinstance(margin, int | float):
        inside, column = low <= margin <= high, margin
    else:
        margin = torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)
        if margin.ndim and margin.shape != cosine.shape[:1]:
            raise MarginError(f"{name} must be one number or one per clip, {len(cosine)}, not {tuple(margin.shape)}")
        inside, column = torch.compiler.is_compiling() or _within(margin, low, high), margin.reshape(-1, 1)
    if not inside:
        raise MarginError(f"{name} must hold finite {want}")
    return column


def _within(x: Tensor, low: float, high: float) -> bool:
    """Every value in [low, high]; NaN compares false."""
    if not x.numel():
        return True
    least, largest = torch.aminmax(x.detach())
    return low <= least.item() and largest.item() <= high


def _check_shapes(cosine: Tensor, target: Tensor, scale: float) -> None:
    """Shapes, and the labels' range, which only eager mode can look at."""
    if cosine.ndim != 2 or cosine.shape[1] < 2 or not cosine.is_floating_point():
        raise MarginError(f"cosine must be floating point of shape (B, C), C >= 2, not {tuple(cosine.shape)}")
    if target.shape != cosine.shape[:1] or target.is_floating_point():
        raise MarginError(f"target must hold {len(cosine)} class indices, not {target.dtype} {tuple(target.shape)}")
    if not (math.isfinite(scale) and scale > 0):
        raise MarginError(f"scale must be positive and finite, not {scale}")
    if not torch.compiler.is_compiling() and not _within(target, 0, cosine.shape[1] - 1):
        raise MarginError(f"labels span {int(target.min())}..{int(target.max())}, classes 0..{cosine.shape[1] - 1}")
