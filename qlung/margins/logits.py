"""Angular margins on the hypersphere: one pure function that every loss of this room goes through.

Every loss is softmax cross-entropy on ``scale * cos(theta)``, with the target made harder by a margin. Losses differ
in the margin that they pass to `angular_margin_logits`, not in code:

==================  ================================  ===================================  =======================
loss                angle added to theta_y [rad]      subtracted from cos theta_y          elsewhere
==================  ================================  ===================================  =======================
`softmax`           0                                 0
`arcface`           m                                 0
`cosface`           0                                 m
`ldam`              0                                 ``root_margin(counts)[y]``
`logit_adjustment`  0                                 0                                    logits + ``log_prior``
`magface`           ``magface_margin(norm)``          0                                    + ``magface_penalty``
`adaface`           ``adaface_margins(norm)[0]``      ``adaface_margins(norm)[1]``
`qlung`             ``QLungLoss.margin(y, aqs)``      0                                    + CE without a margin
==================  ================================  ===================================  =======================
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MarginError

LARGEST_COSINE = 1.01  # 1 up to the rounding of bfloat16, the coarsest type a cosine may come in


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
        features = at_least_float32(features)
        prototypes = self.prototypes.to(features.dtype)
        with torch.autocast(features.device.type, enabled=False):  # it would multiply in half precision
            # Scaling the B x C products, not the B x d features: the same number for less memory traffic.
            return F.linear(features, prototypes * _inverse_norm(prototypes)) * _inverse_norm(features)


def angular_margin_logits(cosine: Tensor, target: Tensor, margin, scale: float, cosine_margin=0.0) -> Tensor:
    """Logits ``scale * cos(theta)``; the target's is ``scale * (cos(theta + margin) - cosine_margin)``.

    Where theta + margin leaves [0, pi], and cos would turn back, the curve goes on as the parabola whose value and
    slope match (C1): the target logit never rises with theta, for margins of either sign. Its slope in the cosine,
    sin(theta + m) / sin(theta), has poles at 0 and pi; within 1e-4 rad of them, where float32 cannot tell the angle
    from the pole, sin(theta) is held constant: every gradient is finite.

    Parameters
    ----------
    cosine : Tensor [shape=(B, C)]
        In [-1, 1] up to rounding. Computed in float32 at least, inside autocast too.
    target : Tensor, array or list [shape=(B,), integer]
        Class of each clip, 0 <= target < C.
    margin : Tensor, array or list [shape=(B,)], or float [rad]
        In [-pi, pi]; above 0 makes the target harder.
    scale : float
        s, positive and finite.
    cosine_margin : Tensor, array or list [shape=(B,)], or float
        In [0, 2], in units of the cosine (CosFace).

    Returns
    -------
    logits : Tensor [shape=(B, C)]
        MarginError on wrong shapes; cosines, labels, margins or scale out of range; or a margin that is not finite.

    Examples
    --------
    >>> angular_margin_logits(torch.tensor([[0.5, 0.0]]), torch.tensor([0]), math.pi / 3, 10.0)
    tensor([[-5.,  0.]])
    """
    return shift_target(*check_batch(cosine, target), margin, scale, cosine_margin)


def shift_target(cosine: Tensor, target: Tensor, margin, scale: float, cosine_margin=0.0) -> Tensor:
    """`angular_margin_logits` of a batch that was already checked: checking again would make a GPU wait."""
    check_scales(scale=scale)
    margin = per_clip("margin", margin, target, cosine.dtype, math.pi, -math.pi, "radians (were degrees passed?)")
    cosine_margin = per_clip("cosine_margin", cosine_margin, target, cosine.dtype, 2.0)
    column = target[:, None]
    picked = cosine.gather(1, column)
    shift = _cos_of_sum(picked, margin[:, None]) - cosine_margin[:, None] - picked
    return (scale * cosine).scatter_add_(1, column, scale * shift)  # in place: one B x C copy less


def check_batch(cosine: Tensor, target: Tensor, n_classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Cosines [B, C] in float32 at least, and labels [B] as int64 on their device; MarginError where they cannot be.

    A cosine that is NaN passes: the loss is then NaN, which the training loop reports.
    """
    if cosine.ndim != 2 or cosine.shape[1] < 2 or not cosine.is_floating_point():
        raise MarginError(f"cosine must be floating point of shape (B, C), C >= 2, not {tuple(cosine.shape)}")
    if n_classes not in (None, cosine.shape[1]):
        raise MarginError(f"cosine has {cosine.shape[1]} columns and counts has {n_classes} classes: they must agree")
    least, largest = _range(cosine)
    if max(-least, largest) > LARGEST_COSINE:
        hint = "AngularClassifier gives cosines; a linear layer's logits go to QLungLoss as logits=, beside the cosines"
        raise MarginError(f"cosines lie in [-1, 1], these in [{least:.3g}, {largest:.3g}]: were logits passed? {hint}")
    target = torch.as_tensor(target, device=cosine.device)
    if target.shape != cosine.shape[:1] or target.is_floating_point() or target.dtype == torch.bool:
        raise MarginError(f"target must hold {len(cosine)} class indices, not {target.dtype} {tuple(target.shape)}")
    first, last = _range(target)
    if first < 0 or last >= cosine.shape[1]:
        raise MarginError(f"labels span {first}..{last}, classes 0..{cosine.shape[1] - 1}")
    return at_least_float32(cosine), target.long()


def check_scales(**scales: float) -> None:
    """MarginError unless every scale is positive and finite."""
    for name, scale in scales.items():
        if not 0 < scale < math.inf:  # NaN compares false
            raise MarginError(f"{name} must be positive and finite, not {scale}")


def per_clip(name: str, values, target: Tensor, dtype: torch.dtype, high: float, low=0.0, hint="") -> Tensor:
    """One number per clip [shape=(B,)] in [low, high], on the labels' device; a single number counts for every clip."""
    values = torch.as_tensor(values, dtype=dtype, device=target.device)
    if values.ndim and values.shape != target.shape:
        raise MarginError(f"{name} must be one number or one per clip, {len(target)}, not {tuple(values.shape)}")
    least, largest = _range(values)
    low, high = torch.tensor([low, high], dtype=dtype).tolist()  # pi in float32 is above pi
    if not (low <= least and largest <= high):  # NaN compares false
        span = f"{least:.4g} to {largest:.4g}"
        raise MarginError(f"{name} must be finite and in [{low:.4g}, {high:.4g}] {hint}; it holds {span}")
    return values.expand(target.shape)


def at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _range(x: Tensor) -> tuple[float, float]:
    """(least, largest) value; both 0 of an empty tensor, both NaN where a value is."""
    return tuple(torch.stack(torch.aminmax(x.detach())).tolist()) if x.numel() else (0, 0)


def _cos_of_sum(c: Tensor, m: Tensor | float) -> Tensor:
    """cos(theta + m) for theta = acos(c); beyond [0, pi] it goes on as +-(1 + excess^2 / 2)."""
    sine = ((1 - c) * (1 + c)).clamp_min(1e-8).sqrt()  # 1 - c^2 cancels near +-1; acos is infinitely steep there
    angle = torch.atan2(sine, c) + m
    inside = angle.clamp(0, math.pi)
    excess = angle - inside
    return inside.cos() * (1 + excess * excess / 2)


def _inverse_norm(x: Tensor) -> Tensor:
    """1 / |x| of each row, and 0 with gradient 0 where |x| is 0."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.masked_fill(norm == 0, math.inf).reciprocal()
