"""The margin against a slow oracle, by limits and by properties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from qlung.errors import MarginError
from qlung.margins import AngularClassifier, QLungLoss, angular_margin_logits, class_margin

COUNTS = torch.tensor([2063, 1215, 501, 363])


def oracle_logit(cosine: float, margin: float, scale: float) -> float:
    """One target logit in plain Python, through the angle itself."""
    theta = math.acos(cosine) + margin
    return scale * (math.cos(theta) if theta <= math.pi else -1 - (theta - math.pi) ** 2 / 2)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(2, 12), st.floats(0, 1.5), st.floats(0.5, 64), st.integers(0, 10_000))
def test_logits_equal_the_oracle(b, c, margin, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    cosine = torch.rand(b, c, generator=generator, dtype=torch.float64) * 1.998 - 0.999
    target = torch.randint(c, (b,), generator=generator)
    logits = angular_margin_logits(cosine, target, margin, scale)
    for row in range(b):
        for column in range(c):
            given_cosine = cosine[row, column].item()
            on_target = column == target[row]
            want = oracle_logit(given_cosine, margin, scale) if on_target else scale * given_cosine
            assert logits[row, column].item() == pytest.approx(want, abs=1e-6 * scale)


def test_paper_class_margins():
    assert class_margin(COUNTS).tolist() == pytest.approx([0.1006, 0.1769, 0.3047, 0.3512], abs=5e-5)


def test_zero_margin_is_cross_entropy_on_scaled_cosines():
    cosine, target = torch.rand(16, 4) * 2 - 1, torch.randint(4, (16,))
    assert torch.equal(angular_margin_logits(cosine, target, 0.0, 37.0), 37.0 * cosine)


def test_loss_never_falls_as_the_angle_grows():
    theta = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    for margin in (0.0, 0.2, 0.5, 1.2, math.pi / 2):
        cosine = torch.stack([theta.cos(), torch.zeros_like(theta)], 1)
        loss = F.cross_entropy(
            angular_margin_logits(cosine, torch.zeros(2001, dtype=torch.long), margin, 15.0),
            torch.zeros(2001).long(),
            reduction="none",
        )
        assert (loss.diff() >= -1e-6).all()


def test_gradcheck_and_finite_gradients_at_the_poles():
    cosine = torch.tensor([[0.3, -0.2, 0.9], [-0.95, 0.1, 0.4]], dtype=torch.float64, requires_grad=True)
    target, margin = torch.tensor([0, 0]), torch.tensor([0.3, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c: angular_margin_logits(c, target, margin, 15.0), cosine)
    for pole in (1.0, -1.0):
        c = torch.tensor([[pole, 0.0]], requires_grad=True)
        F.cross_entropy(angular_margin_logits(c, torch.tensor([0]), 0.5, 15.0), torch.tensor([0])).backward()
        assert c.grad.isfinite().all()


def test_loss_is_the_papers_formula():
    cosine = torch.rand(8, 4, dtype=torch.float64) * 1.8 - 0.9
    target, aqs = torch.randint(4, (8,)), torch.rand(8, dtype=torch.float64)
    by_hand = 0.0
    priors = (COUNTS / COUNTS.sum()).tolist()
    for row in range(8):
        y, z = int(target[row]), cosine[row].tolist()
        margin = 0.5 * 0.5 * aqs[row].item() + 0.5 * (-0.2 / math.log(4) * math.log(priors[y]))
        shifted = [oracle_logit(v, margin, 15.0) if k == y else 15.0 * v for k, v in enumerate(z)]
        plain = [37.0 * v for v in z]
        for weight, logits in ((1.0, plain), (0.4, shifted)):
            by_hand += weight * (math.log(sum(math.exp(v) for v in logits)) - logits[y]) / 8
    assert QLungLoss(COUNTS)(cosine, target, aqs).item() == pytest.approx(by_hand, abs=1e-5)


def test_prototypes_are_registered_and_move():
    classifier = AngularClassifier(6, 4)
    before = classifier.prototypes.detach().clone()
    optimiser = torch.optim.SGD(classifier.parameters(), lr=0.1)
    features, target = torch.randn(8, 6), torch.randint(4, (8,))
    QLungLoss(COUNTS)(classifier(features), target, torch.full((8,), 0.5)).backward()
    optimiser.step()
    assert not torch.equal(before, classifier.prototypes)
    assert "prototypes" in classifier.state_dict()


@pytest.mark.parametrize(
    ("cosine", "target", "margin", "scale"),
    [
        (torch.rand(2, 4), torch.tensor([0, 4]), 0.1, 15.0),
        (torch.rand(2, 4), torch.tensor([0, -1]), 0.1, 15.0),
        (torch.rand(2, 4), torch.tensor([0]), 0.1, 15.0),
        (torch.rand(2, 1), torch.tensor([0, 0]), 0.1, 15.0),
        (torch.rand(2, 4), torch.tensor([0, 1]), float("nan"), 15.0),
        (torch.rand(2, 4), torch.tensor([0, 1]), 30.0, 15.0),
        (torch.rand(2, 4), torch.tensor([0, 1]), 0.1, 0.0),
    ],
)
def test_bad_input_is_refused(cosine, target, margin, scale):
    with pytest.raises(MarginError):
        angular_margin_logits(cosine, target, margin, scale)


def test_an_empty_class_is_refused():
    with pytest.raises(MarginError, match="every class needs a clip"):
        class_margin(torch.tensor([5, 0, 2]))
