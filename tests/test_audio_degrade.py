"""Degradations have the kind and amount that they name."""

import pytest
import torch
from signals import RATE, noise

from qlung import quality
from qlung.audio import degrade
from qlung.errors import QualityError


@pytest.mark.parametrize("kind", degrade.SEVERITIES)
def test_degradations_have_their_amount(kind):
    x = noise(4.0, clips=3) * torch.linspace(0.2, 1, 4 * RATE)
    unit, amounts = degrade.SEVERITIES[kind]
    for amount in amounts:
        y = degrade.degraded(x, RATE, kind, amount)
        assert y.shape == x.shape
        assert torch.equal(y, degrade.degraded(x, RATE, kind, amount))
        if kind == "noise":
            snr = 10 * (x.square().mean(-1) / (y - x).square().mean(-1)).log10()
            torch.testing.assert_close(snr, torch.full((3,), amount), atol=0.05, rtol=0)
        elif kind == "clipping":
            at_limit = (y.abs() >= y.abs().amax(-1, keepdim=True) - 1e-9).float().mean(-1)
            torch.testing.assert_close(at_limit, torch.full((3,), amount), atol=2e-4, rtol=0)
        elif kind == "lowpass":
            spectrum = torch.fft.rfft(y).abs()
            assert spectrum[:, torch.fft.rfftfreq(x.shape[-1], 1 / RATE) > amount + 1].max() < 1e-3
        elif kind == "dropouts":
            torch.testing.assert_close((y == 0).float().mean(-1), torch.full((3,), amount), atol=0.02, rtol=0)
        else:
            torch.testing.assert_close(quality.rms_dbfs(y), quality.rms_dbfs(x) + amount, atol=1e-3, rtol=0)
    assert unit
    with pytest.raises(QualityError, match="unknown degradation 'echo'"):
        degrade.degraded(x, RATE, "echo", 1)
