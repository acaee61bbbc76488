"""The losses against slow oracles and the papers' formulas, by limits and by properties; a run trains its loss."""

import io
import math
import re
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from qlung import margins, paths, quality, training
from qlung.errors import MarginError
from qlung.margins import (
    METHODS,
    AngularClassifier,
    Objective,
    QLungLoss,
    adaface_margins,
    angular_margin_logits,
    class_margin,
    log_prior,
    magface_margin,
    magface_penalty,
    root_margin,
)
from qlung.margins.methods import Batch

COUNTS = torch.tensor([2063, 1215, 501, 363])
MARGINS = (-math.pi, -1.0, -0.2, 0.0, 0.2, 0.5, 1.2, math.pi / 2, math.pi)


def oracle_logit(cosine: float, margin: float, scale: float) -> float:
    """One target logit in plain Python, through the angle itself and by cases."""
    angle = math.acos(cosine) + margin
    if angle < 0:
        return scale * (1 + angle**2 / 2)
    return scale * (math.cos(angle) if angle <= math.pi else -1 - (angle - math.pi) ** 2 / 2)


def random_cosines(b, c, seed, dtype=torch.float64):
    """Cosines in (-1, 1) and labels."""
    generator = torch.Generator().manual_seed(seed)
    cosine = torch.rand(b, c, generator=generator, dtype=torch.float64) * 1.998 - 0.999
    return cosine.to(dtype), torch.randint(c, (b,), generator=generator)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(2, 12),
    st.floats(-math.pi, math.pi),
    st.floats(0.5, 64),
    st.floats(0, 2),
    st.integers(0, 10_000),
)
def test_logits_equal_the_oracle(b, c, margin, scale, cosine_margin, seed):
    cosine, target = random_cosines(b, c, seed)
    logits = angular_margin_logits(cosine, target, margin, scale, cosine_margin)
    for row in range(b):
        for column in range(c):
            value = cosine[row, column].item()
            on_target = column == target[row]
            want = oracle_logit(value, margin, scale) - scale * cosine_margin if on_target else scale * value
            assert logits[row, column].item() == pytest.approx(want, abs=1e-6 * scale)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(2, 5),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.lists(st.integers(1, 10**6), min_size=5, max_size=5),
    st.integers(0, 10_000),
)
def test_qlung_is_finite_for_any_shape_dtype_and_counts(b, c, dtype, counts, seed):
    cosine, target = random_cosines(b, c, seed, dtype)
    cosine.requires_grad_()
    loss = QLungLoss(torch.tensor(counts[:c]))(cosine, target, torch.linspace(0, 1, b))
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loss.isfinite()
    assert loss >= 0
    assert cosine.grad.isfinite().all()
    assert cosine.grad.dtype == dtype


def test_one_to_a_million_is_a_margin_or_a_clear_error():
    margin = class_margin(torch.tensor([1, 10**6]))
    assert margin.tolist() == pytest.approx([0.2 * math.log(10**6 + 1) / math.log(2), 0.0], abs=1e-5)
    assert QLungLoss(torch.tensor([1, 10**6])).class_margin.max() > math.pi  # halved by gamma: in range
    with pytest.raises(MarginError, match="rarest class would get a margin of"):
        QLungLoss(torch.tensor([1, 10**6]), gamma=0.0)


def test_paper_class_margins():
    assert class_margin(COUNTS).tolist() == pytest.approx([0.1006, 0.1769, 0.3047, 0.3512], abs=5e-5)


def test_class_margins_by_hand():
    counts = torch.tensor([16, 81])
    assert root_margin(counts, 0.3).tolist() == pytest.approx([0.3, 0.2])  # 16^(1/4) = 2, 81^(1/4) = 3
    assert log_prior(counts, 2.0).tolist() == pytest.approx([2 * math.log(16 / 97), 2 * math.log(81 / 97)])
    assert class_margin(torch.tensor([7, 7, 7]), 0.2).tolist() == pytest.approx([0.2] * 3)


def test_zero_margin_is_cross_entropy_on_scaled_cosines():
    cosine, target = random_cosines(16, 4, 0, torch.float32)
    ours = F.cross_entropy(angular_margin_logits(cosine, target, 0.0, 37.0), target)
    assert ours.item() == pytest.approx(F.cross_entropy(37.0 * cosine, target).item(), rel=1e-6)


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("cosine_margin", [0.0, 0.35])
def test_loss_never_falls_as_the_angle_grows(margin, cosine_margin):
    theta = torch.linspace(0, math.pi, 4001, dtype=torch.float64)
    cosine = torch.stack([theta.cos(), torch.zeros_like(theta)], 1)
    target = torch.zeros(len(theta), dtype=torch.long)
    logits = angular_margin_logits(cosine, target, margin, 15.0, cosine_margin)
    assert (F.cross_entropy(logits, target, reduction="none").diff() >= -1e-9).all()


@pytest.mark.parametrize("margin", [0.5, -0.5])
def test_the_extension_is_c1(margin):
    """Value and slope in theta are equal on both sides of the angle where theta + m leaves [0, pi]."""
    edge = math.pi - margin if margin > 0 else -margin
    theta = torch.tensor([edge - 1e-6, edge + 1e-6], dtype=torch.float64, requires_grad=True)
    cosine = torch.stack([theta.cos(), torch.zeros_like(theta)], 1)
    logits = angular_margin_logits(cosine, torch.zeros(2, dtype=torch.long), margin, 1.0)[:, 0]
    (slope,) = torch.autograd.grad(logits.sum(), theta)
    assert logits[0].item() == pytest.approx(logits[1].item(), abs=1e-10)
    assert slope[0].item() == pytest.approx(slope[1].item(), abs=1e-5)
    assert slope.abs().max() < 1e-5


@pytest.mark.parametrize("margin", [0.3, 2.9, -0.6])
def test_gradcheck_of_the_logits(margin):
    cosine = torch.tensor([[0.3, -0.2, 0.9], [-0.95, 0.1, 0.4], [0.9, 0.0, -0.3]], dtype=torch.float64)
    m = torch.full((3,), margin, dtype=torch.float64, requires_grad=True)
    b = torch.full((3,), 0.2, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 0, 0])
    logits = lambda c, m, b: angular_margin_logits(c, target, m, 15.0, b)  # noqa: E731
    assert torch.autograd.gradcheck(logits, (cosine.requires_grad_(), m, b))


def test_gradcheck_of_the_whole_loss_in_features_and_prototypes():
    torch.manual_seed(0)
    classifier, loss = AngularClassifier(5, 4).double(), QLungLoss(COUNTS)
    features = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    target, aqs = torch.tensor([0, 1, 2, 3, 3, 0]), torch.linspace(0, 1, 6, dtype=torch.float64)

    def whole(x, w):
        return loss(torch.func.functional_call(classifier, {"prototypes": w}, (x,)), target, aqs)

    assert torch.autograd.gradcheck(whole, (features, classifier.prototypes))


@pytest.mark.parametrize("pole", [1.0, -1.0, 1 + 1e-7, -1 - 1e-7])
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_on_a_prototype_and_opposite(pole, margin, dtype):
    c = torch.tensor([[pole, 0.0]], dtype=dtype, requires_grad=True)
    loss = F.cross_entropy(angular_margin_logits(c, torch.tensor([0]), margin, 64.0), torch.tensor([0]))
    loss.backward()
    assert loss.isfinite()
    assert c.grad.isfinite().all()


def test_the_angle_is_accurate_close_to_the_prototype():
    """In float32 at theta = 0.018, 1 - c^2 would cost a relative 4e-5 of the sine; (1 - c)(1 + c) costs a tenth."""
    c = 1 - 2800 / 2**24
    logit = angular_margin_logits(torch.tensor([[c, 0.0]]), torch.tensor([0]), math.pi / 2, 1.0)[0, 0]
    assert -logit.item() == pytest.approx(math.sin(math.acos(c)), rel=2e-5)


def test_loss_is_the_papers_formula():
    cosine, target = random_cosines(8, 4, 3)
    aqs = torch.linspace(0.05, 0.95, 8, dtype=torch.float64)
    priors = (COUNTS / COUNTS.sum()).tolist()
    for gamma in (0.5, 0.2):
        by_hand = 0.0
        for row in range(8):
            y, z = int(target[row]), cosine[row].tolist()
            margin = gamma * 0.5 * aqs[row].item() + (1 - gamma) * (-0.2 / math.log(4) * math.log(priors[y]))
            shifted = [oracle_logit(v, margin, 15.0) if k == y else 15.0 * v for k, v in enumerate(z)]
            plain = [37.0 * v for v in z]
            for weight, logits in ((1.0, plain), (0.4, shifted)):
                by_hand += weight * (math.log(sum(math.exp(v) for v in logits)) - logits[y]) / 8
        assert QLungLoss(COUNTS, gamma=gamma)(cosine, target, aqs).item() == pytest.approx(by_hand, abs=1e-5)


def test_better_audio_and_rarer_classes_get_more_margin():
    loss = QLungLoss(COUNTS)
    by_quality = loss.margin(torch.tensor([0, 0, 0]), torch.tensor([0.0, 0.5, 1.0]))
    assert (by_quality.diff() > 0).all()
    by_class = loss.margin(torch.arange(4), torch.full((4,), 0.5))
    assert (by_class.diff() > 0).all()


@pytest.mark.parametrize("name", ["ArcFace", "CosFace"])
@pytest.mark.parametrize("c", [2, 4, 50])
def test_equal_to_pytorch_metric_learning(name, c):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    torch.manual_seed(c)
    classifier = AngularClassifier(12, c)
    features, target = torch.randn(40, 12), torch.randint(c, (40,))
    if name == "ArcFace":  # theirs jumps at pi - m; ours goes on, so compare before it
        theirs, margins = losses.ArcFaceLoss(c, 12, margin=math.degrees(0.3), scale=20.0), (0.3, 0.0)
        keep = classifier(features).gather(1, target[:, None])[:, 0] > math.cos(math.pi - 0.31)
        features, target = features[keep], target[keep]
    else:
        theirs, margins = losses.CosFaceLoss(c, 12, margin=0.3, scale=20.0), (0.0, 0.3)
    theirs.W.data = classifier.prototypes.data.T.clone()
    ours_at, theirs_at = features.clone().requires_grad_(), features.clone().requires_grad_()
    ours = F.cross_entropy(angular_margin_logits(classifier(ours_at), target, margins[0], 20.0, margins[1]), target)
    want = theirs(theirs_at, target)
    ours.backward()
    want.backward()
    assert ours.item() == pytest.approx(want.item(), rel=1e-5)
    assert torch.allclose(ours_at.grad, theirs_at.grad, atol=1e-5)
    assert torch.allclose(classifier.prototypes.grad, theirs.W.grad.T, atol=1e-5)


def test_magface_and_adaface_move_the_angle_in_opposite_directions():
    norm = torch.tensor([12.0, 40.0, 60.0, 105.0], requires_grad=True)
    mag, (ada, additive) = magface_margin(norm), adaface_margins(norm)
    assert (mag.diff() > 0).all()
    assert (ada.diff() < 0).all()
    assert (additive.diff() > 0).all()
    assert mag.requires_grad
    assert not ada.requires_grad
    assert magface_margin(torch.tensor([1.0, 10.0, 110.0, 500.0])).tolist() == pytest.approx([0.45, 0.45, 0.8, 0.8])
    (slope,) = torch.autograd.grad(magface_penalty(norm).sum(), norm)
    assert (slope < 0).all()
    assert ada.tolist() == pytest.approx((0.4 - additive).tolist())


def test_adaface_keeps_no_state_and_survives_a_batch_of_one():
    angle, additive = adaface_margins(torch.tensor([3.7]))
    assert angle.item() == 0
    assert additive.item() == pytest.approx(0.4)
    norm = torch.rand(9) * 20
    assert torch.equal(adaface_margins(norm)[0], adaface_margins(norm)[0])


def test_logit_adjustment_is_a_pairwise_margin():
    cosine, target = random_cosines(5, 4, 1)
    prior = log_prior(COUNTS)
    adjusted = F.cross_entropy(angular_margin_logits(cosine, target, 0.0, 9.0) + prior, target, reduction="none")
    for row, y in enumerate(target.tolist()):
        pairs = sum(math.exp(9 * (cosine[row, j] - cosine[row, y]) + prior[j] - prior[y]) for j in range(4) if j != y)
        assert adjusted[row].item() == pytest.approx(math.log1p(pairs), abs=1e-6)


def test_turning_everything_together_changes_nothing():
    torch.manual_seed(1)
    classifier, turned = AngularClassifier(7, 4), AngularClassifier(7, 4)
    rotation = torch.linalg.qr(torch.randn(7, 7)).Q
    turned.prototypes.data = classifier.prototypes.data @ rotation
    features, target, aqs = torch.randn(9, 7), torch.randint(4, (9,)), torch.rand(9)
    loss = QLungLoss(COUNTS)
    assert loss(classifier(features), target, aqs).item() == pytest.approx(
        loss(turned(features @ rotation * 3.0), target, aqs).item(), rel=1e-4  # nor does the features' length
    )  # fmt: skip


def test_prototypes_are_registered_trained_and_saved():
    torch.manual_seed(0)
    classifier = AngularClassifier(6, 4)
    before = classifier.prototypes.detach().clone()
    optimiser = torch.optim.SGD(classifier.parameters(), lr=0.1)
    features, target = torch.randn(8, 6), torch.randint(4, (8,))
    QLungLoss(COUNTS)(classifier(features), target, torch.full((8,), 0.5)).backward()
    optimiser.step()
    assert ((classifier.prototypes - before).norm(dim=1) > 1e-4).all()
    saved = io.BytesIO()
    torch.save(classifier.state_dict(), saved)
    saved.seek(0)
    restored = AngularClassifier(6, 4)
    restored.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(restored(features), classifier(features))


def test_a_zero_feature_has_cosine_and_gradient_zero():
    features = torch.zeros(2, 6)
    features[1] = 1.0
    features.requires_grad_()
    classifier = AngularClassifier(6, 4)
    cosine = classifier(features)
    QLungLoss(COUNTS)(cosine, torch.tensor([1, 2]), torch.tensor([0.5, 0.5])).backward()
    assert (cosine[0] == 0).all()
    assert (features.grad[0] == 0).all()
    assert features.grad[1].abs().sum() > 0
    assert classifier.prototypes.grad.isfinite().all()


def test_autocast_computes_in_float32():
    classifier, features = AngularClassifier(32, 4), torch.randn(8, 32)
    target, aqs = torch.randint(4, (8,)), torch.rand(8)
    plain = QLungLoss(COUNTS)(classifier(features), target, aqs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosine = classifier(features)
        inside = QLungLoss(COUNTS)(cosine, target, aqs)
        assert angular_margin_logits(cosine.bfloat16(), target, 0.2, 15.0).dtype == torch.float32
    assert cosine.dtype == inside.dtype == torch.float32
    assert inside.item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: the device check cannot run here")
def test_on_a_gpu():
    classifier, loss = AngularClassifier(8, 4), QLungLoss(COUNTS)
    features, target, aqs = torch.randn(5, 8), torch.randint(4, (5,)), torch.rand(5)
    here = loss(classifier(features), target, aqs)
    cosine = classifier.cuda()(features.cuda())
    for there in (loss(cosine, target, aqs), loss.cuda()(cosine, target.cuda(), aqs.numpy())):
        assert there.item() == pytest.approx(here.item(), rel=1e-4)


@pytest.mark.parametrize("b", [1, 3])
def test_a_margin_may_be_a_number_or_one_per_clip(b):
    cosine, target = random_cosines(b, 3, 2)
    want = angular_margin_logits(cosine, target, 0.3, 15.0)
    for margin in (torch.tensor(0.3), torch.full((b,), 0.3), [0.3] * b):
        assert torch.allclose(angular_margin_logits(cosine, target, margin, 15.0), want, atol=1e-6)


@pytest.mark.parametrize(
    ("cosine", "target", "margin", "scale", "message"),
    [
        (torch.rand(2, 4), torch.tensor([0, 4]), 0.1, 15.0, "labels span 0..4"),
        (torch.rand(2, 4), torch.tensor([0, -1]), 0.1, 15.0, "labels span -1..0"),
        (torch.rand(2, 4), torch.tensor([0]), 0.1, 15.0, "must hold 2 class indices"),
        (torch.rand(2, 4), torch.tensor([0.0, 1.0]), 0.1, 15.0, "class indices"),
        (torch.rand(2, 1), torch.tensor([0, 0]), 0.1, 15.0, "C >= 2"),
        (torch.rand(4), torch.tensor([0, 0]), 0.1, 15.0, "shape"),
        (torch.ones(2, 4, dtype=torch.long), torch.tensor([0, 1]), 0.1, 15.0, "floating point"),
        (torch.rand(2, 4), torch.tensor([0, 1]), float("nan"), 15.0, "margin must be finite"),
        (torch.rand(2, 4), torch.tensor([0, 1]), torch.tensor([0.1, math.nan]), 15.0, "margin must be finite"),
        (torch.rand(2, 4), torch.tensor([0, 1]), 30.0, 15.0, "degrees"),
        (torch.rand(2, 4), torch.tensor([0, 1]), torch.rand(2, 1), 15.0, "one per clip"),
        (torch.rand(2, 4), torch.tensor([0, 1]), torch.rand(4), 15.0, "one per clip"),
        (torch.rand(2, 4), torch.tensor([0, 1]), 0.1, 0.0, "scale"),
        (torch.rand(2, 4), torch.tensor([0, 1]), 0.1, math.inf, "scale must be positive and finite"),
        (torch.rand(2, 4), torch.tensor([0, 1]), 0.1, -5.0, "scale must be positive and finite, not -5.0"),
        (torch.rand(2, 4), torch.tensor([0, 1]), 0.1, math.nan, "scale must be positive and finite, not nan"),
        (1.02 * torch.ones(2, 4), torch.tensor([0, 1]), 0.1, 15.0, "were logits passed"),
        (torch.tensor([[0.0, -3.0]]), torch.tensor([0]), 0.1, 15.0, r"in \[-3, 0\]: were logits passed"),
        (torch.rand(2, 4), torch.tensor([True, False]), 0.1, 15.0, "class indices"),
    ],
)
def test_bad_input_is_refused(cosine, target, margin, scale, message):
    with pytest.raises(MarginError, match=message):
        angular_margin_logits(cosine, target, margin, scale)


def test_a_cosine_margin_out_of_range_is_refused():
    with pytest.raises(MarginError, match="cosine_margin"):
        angular_margin_logits(torch.rand(2, 4), torch.tensor([0, 1]), 0.0, 15.0, -0.1)


@pytest.mark.parametrize("counts", [[5, 0, 2], [5, -1], [5, math.nan]])
@pytest.mark.parametrize("margins", [class_margin, root_margin, log_prior, QLungLoss])
def test_an_empty_class_is_refused(margins, counts):
    with pytest.raises(MarginError, match="every class needs a clip"):
        margins(torch.tensor(counts))


@pytest.mark.parametrize("counts", [[5], [[1, 2], [3, 4]]])
def test_counts_need_one_axis_of_two_classes(counts):
    with pytest.raises(MarginError, match="shape"):
        class_margin(torch.tensor(counts))


def test_bad_settings_and_qualities_are_refused():
    for bad in ({"gamma": 1.5}, {"lam": -1.0}, {"kappa": math.nan}, {"target": -0.1}):
        with pytest.raises(MarginError, match="QLungLoss wants"):
            QLungLoss(COUNTS, **bad)
    for name in ("scale_cls", "scale_margin"):
        for scale in (0, -5, math.nan, math.inf):
            with pytest.raises(MarginError, match=f"{name} must be positive and finite, not {scale}"):
                QLungLoss(COUNTS, **{name: scale})
    with pytest.raises(MarginError, match="at least 2"):
        AngularClassifier(6, 1)
    loss, target = QLungLoss(COUNTS), torch.tensor([0, 1])
    for aqs in (torch.tensor([0.5, 1.5]), torch.tensor([0.5, math.nan]), torch.tensor([0.5]), [0.5, -0.1], math.nan):
        with pytest.raises(MarginError, match="aqs"):
            loss(torch.rand(2, 4), target, aqs)


def test_logits_and_a_wrong_number_of_columns_are_refused():
    loss, target = QLungLoss(COUNTS), torch.tensor([0, 1])
    with pytest.raises(MarginError, match=r"cosine has 5 columns and counts has 4 classes"):
        loss(torch.rand(2, 5), target, 0.5)
    with pytest.raises(MarginError, match="were logits passed"):
        loss(10 * torch.rand(2, 4) + 2, target, 0.5)
    with pytest.raises(MarginError, match=r"logits must have the cosines' shape \(2, 4\), not \(2, 3\)"):
        loss(torch.rand(2, 4), target, 0.5, logits=torch.rand(2, 3))
    for published in (margins.ldam, margins.logit_adjustment):
        with pytest.raises(MarginError, match="cosine has 4 columns and counts has 3 classes"):
            published(torch.rand(2, 4), target, [5, 4, 3])
    half = F.linear(F.normalize(torch.randn(64, 768)).bfloat16(), F.normalize(torch.randn(4, 768)).bfloat16())
    half = half / half.abs().max() * 1.005  # as far above 1 as rounding may take a cosine
    assert loss(half, torch.zeros(64, dtype=torch.long), 0.5).isfinite()


def test_a_nan_in_the_features_is_a_nan_in_the_loss():
    """A diverged network is for the training loop to report, which knows the epoch and the learning rate."""
    assert QLungLoss(COUNTS)(torch.full((2, 4), math.nan), torch.tensor([0, 1]), 0.5).isnan()


def test_what_the_scorer_returns_goes_straight_in():
    rng = np.random.default_rng(0)
    h, r = rng.uniform(0.3, 0.9, 6), rng.uniform(-50, -10, 6)
    aqs = quality.QualityScorer().fit(h, r).score(h, r)
    assert aqs.dtype == np.float64
    cosine, target = random_cosines(6, 4, 0, torch.float32)
    loss, want = QLungLoss(COUNTS), None
    given_as = [aqs, aqs.tolist(), torch.tensor(aqs), torch.tensor(aqs).float()]
    for values in given_as:
        for labels in (target, target.tolist(), target.numpy(), target.int()):
            got = loss(cosine, labels, values)
            want = got if want is None else want
            assert got.dtype == torch.float32
            assert got.item() == pytest.approx(want.item(), rel=1e-6)
    assert loss(cosine, target, torch.tensor(aqs).half()).item() == pytest.approx(want.item(), rel=1e-3)
    assert loss(cosine, target, 0.3).item() == pytest.approx(loss(cosine, target, [0.3] * 6).item())
    assert loss(cosine, target, 1).item() == pytest.approx(loss(cosine, target, torch.ones(6)).item())


def test_the_public_names_load_neither_jupyter_nor_dask():
    code = (
        "import sys; from qlung import AngularClassifier, QLungLoss, load_corpus; "
        "print({name.split('.')[0] for name in sys.modules} & {'IPython', 'jupyterlab', 'ipywidgets', 'papermill', "
        "'jupytext', 'notebook', 'dask', 'distributed', 'matplotlib', 'transformers'})"
    )
    job = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT)
    assert job.stdout == "set()\n", job.stderr


def formulas() -> tuple[dict, dict]:
    """method -> (loss written out from its paper, angle added to theta_y [rad]); and head -> the batch they are of."""
    counts, generator = torch.tensor([8, 4, 2, 2]), torch.Generator().manual_seed(0)
    cosine = 1.3 * torch.rand(6, 4, generator=generator) - 0.5  # angles where no margin leaves [0, pi]
    target, norm, aqs = torch.tensor([0, 1, 2, 3, 0, 1]), torch.linspace(1.5, 9, 6), torch.linspace(0.1, 0.9, 6)
    linear, hot, theta = torch.randn(6, 4, generator=generator), F.one_hot(target, 4), cosine.acos()

    def ce(logits, weight=None):
        own = logits.gather(1, target[:, None])[:, 0] - logits.exp().sum(1).log()
        weight = torch.ones(6) if weight is None else weight[target]
        return -(weight * own).sum() / weight.sum()

    def second_term(margin):
        return 0.4 * ce(15 * (theta + margin[:, None] * hot).cos())

    by_class = -0.2 * (counts / 16).log()[target] / math.log(4)
    both = 0.5 * 0.5 * aqs + 0.5 * by_class
    z = ((norm - norm.mean()) / (norm.std(correction=0) + 1e-3) * 0.333).clamp(-1, 1)
    rising, rare, none, angular = 0.45 + 0.35 * (norm - 1) / 10, (2 / counts) ** 0.25 / 2, torch.zeros(6), 37 * cosine
    magface = ce(37 * (theta + rising[:, None] * hot).cos()) + 3.5 * (1 / norm + norm / 121).mean()
    adaface = ce(37 * ((theta - 0.4 * z[:, None] * hot).cos() - 0.4 * (z[:, None] + 1) * hot))
    return {
        "ce": (ce(linear), none),
        "ce_weighted": (ce(linear, 16 / (4 * counts)), none),
        "angular": (ce(angular), none),
        "fixed": (ce(linear) + second_term(none + 0.2), none + 0.2),
        "quality": (ce(linear) + second_term(0.5 * aqs), 0.5 * aqs),
        "class": (ce(linear) + second_term(both), both),
        "qlung": (ce(angular) + second_term(both), both),
        "arcface": (ce(37 * (theta + 0.5 * hot).cos()), none + 0.5),
        "cosface": (ce(37 * (cosine - 0.35 * hot)), none),
        "ldam": (ce(37 * (cosine - rare * hot)), none),
        "logit_adjustment": (ce(angular + (counts / 16).log()), none),
        "magface": (magface, rising),
        "adaface": (adaface, -0.4 * z),
    }, {head: Batch(logits, cosine, norm, target, aqs) for head, logits in [("linear", linear), ("angular", angular)]}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_the_formula_of_its_paper(method):
    """The row's loss is its formula, and what a run trains and records is the row's loss."""
    config = training.Config(method=method)
    expected, batches = formulas()
    batch, objective = batches[METHODS[method].head], Objective(config, [8, 4, 2, 2])
    loss, angle = expected[method]
    torch.testing.assert_close(METHODS[method].loss(objective, batch), loss)
    trained, first_term, recorded = objective(*batch)
    assert trained == METHODS[method].loss(objective, batch)
    torch.testing.assert_close(recorded, angle)
    torch.testing.assert_close(first_term, F.cross_entropy(batch.logits, batch.target, objective.class_weights))


def test_a_published_row_calls_the_function_of_its_name(monkeypatch):
    """What a reader imports and calls is what a run trains."""
    _, batches = formulas()
    for method in ("arcface", "cosface", "ldam", "logit_adjustment", "magface", "adaface"):
        spy = mock.Mock(wraps=getattr(margins, method))
        assert getattr(margins.losses, method) is getattr(margins, method)
        monkeypatch.setattr(margins.losses, method, spy)
        loss = Objective(training.Config(method=method), [8, 4, 2, 2])(*batches["angular"])[0]
        assert spy.call_count == 1
        assert loss == getattr(margins, method)(*spy.call_args.args, **spy.call_args.kwargs)
    for method in ("quality", "class", "qlung"):
        objective, batch = Objective(training.Config(method=method), [8, 4, 2, 2]), batches[METHODS[method].head]
        assert isinstance(objective.qlung, QLungLoss)
        assert objective(*batch)[0] == objective.qlung(batch.cosine, batch.target, batch.aqs, batch.logits)


def test_defaults_are_the_authors():
    cosine, target = random_cosines(6, 4, 4, torch.float32)
    norm = torch.linspace(20, 90, 6)
    assert margins.softmax(cosine, target).item() == pytest.approx(F.cross_entropy(37 * cosine, target).item())
    assert margins.arcface(cosine, target) == margins.arcface(cosine, target, margin=0.5, scale=37.0)
    rising = angular_margin_logits(cosine, target, 0.45 + 0.35 * (norm - 10) / 100, 37.0)
    want = F.cross_entropy(rising, target) + 35 * (1 / norm + norm / 110**2).mean()
    assert margins.magface(cosine, target, norm).item() == pytest.approx(want.item())
    aqs = torch.linspace(0, 1, 6)
    loss = QLungLoss(COUNTS)
    by_function = margins.qlung(cosine, target, loss.margin(target, aqs))
    assert loss(cosine, target, aqs) == by_function == loss(cosine, target, aqs, logits=37.0 * cosine)


def test_magface_lengthens_features_and_the_others_leave_length_alone():
    cosine, target = random_cosines(6, 4, 4, torch.float32)
    norm = torch.linspace(20, 90, 6, requires_grad=True)
    (pull,) = torch.autograd.grad(margins.magface(cosine, target, norm, margins=(0.5, 0.5)), norm)
    assert (pull < 0).all()
    assert not margins.adaface(cosine, target, norm).requires_grad


def test_the_lines_of_the_readme_train():
    """The README's block that calls ``backward``: five steps lower its loss."""
    blocks = re.findall(r"```python\n(.*?)```", (paths.ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [text for text in blocks if "QLungLoss" in text and "backward()" in text]
    torch.manual_seed(0)
    names = {}
    exec(block, names)
    cosine = AngularClassifier(32, 4)(torch.nn.Linear(8000, 32)(names["waveforms"]))
    untrained = names["criterion"](cosine, names["target"], names["aqs"])
    assert names["loss"] < 0.5 * untrained
    assert (names["predicted"] == names["target"]).float().mean() > 0.9
