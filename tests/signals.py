"""Test signals: white noise and tones."""

import torch

RATE = 16000


def noise(seconds=1.0, seed=0, clips=1, rate=RATE):
    return 0.1 * torch.randn(clips, int(seconds * rate), generator=torch.Generator().manual_seed(seed))


def tone(hertz=1000.0, seconds=1.0, rate=RATE):
    return torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * rate)) / rate)[None]
