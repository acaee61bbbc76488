"""Does the trainer train what it says? A plain loop beside it, on real recordings; prints a line of JSON per network.

    python benchmarks/oracle.py DIR [SEED ...]

DIR holds icbhi/ and sprsound/ in their owners' layouts. Row "ce" of profile published is trained by hand: encoder,
linear head, Adam with a cosine rate, two masks of time and two of frequency. "same" draws the random numbers that
`qlung.training.fit` draws, and must end at the Scores of its network: then any difference to another loop is one of
random numbers. "own" draws others, in other ways (numpy; torch's head), as somebody who had never seen the trainer.
"""

import json
import math
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from qlung import backbones, evaluation, training
from qlung.audio import frontends
from qlung.training import profiles


def masked(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Two masks of frequency (up to 48 bands) and two of time (up to 160 frames) in each clip, filled with its mean."""
    x = x.clone()
    for clip in x:
        fill = clip.mean()
        for axis, longest in ((0, 48), (0, 48), (1, 160), (1, 160)):
            length = int(rng.random() * longest)
            clip.narrow(axis, int(rng.random() * (clip.shape[axis] - length)), length).fill_(fill)
    return x


class Own(nn.Module):
    """The encoder and torch's linear layer, of the same size at the start."""

    def __init__(self):
        super().__init__()
        self.encoder = backbones.build_backbone("mn04")
        self.head = nn.Linear(self.encoder.dim, 4)
        nn.init.xavier_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return (self.head(self.encoder(x)),)


def train(config, x: np.ndarray, y: torch.Tensor, same: bool) -> nn.Module:
    """The plain loop."""
    torch.manual_seed(config.seed)
    net = (training.Model(config) if same else Own()).to(memory_format=torch.channels_last)
    generator, rng = torch.Generator().manual_seed(config.seed), np.random.default_rng(config.seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    steps, step = config.epochs * math.ceil(len(x) / config.batch_size), 0
    for _ in range(config.epochs):
        net.train()
        order = torch.randperm(len(x), generator=generator) if same else torch.from_numpy(rng.permutation(len(x)))
        for batch in order.split(config.batch_size):
            clips = torch.from_numpy(x[batch.numpy()]).float()
            clips = frontends.spec_augment(clips, generator, (48, 160)) if same else masked(clips, rng)
            loss = F.cross_entropy(net(clips)[0], y[batch])
            optimiser.zero_grad()
            loss.backward()
            rate = config.lr * (0.001 + 0.999 * (1 + math.cos(math.pi * step / steps)) / 2)
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
            step += 1
    return net.eval()


@torch.inference_mode()
def scores(net: nn.Module, x: np.ndarray, label: np.ndarray) -> dict:
    """Sp, Se, Score and AUROC [%] of a network."""
    parts = np.array_split(np.arange(len(x)), math.ceil(len(x) / 32))
    logits = torch.cat([net(torch.from_numpy(x[part]).float())[0] for part in parts])
    found = evaluation.measures(label, logits.argmax(1).numpy(), logits.double().softmax(1).numpy())
    return {name: round(found[name], 1) for name in ("Sp", "Se", "Score", "AUROC")}


def main() -> None:
    torch.set_num_threads(1)
    data, *seeds = sys.argv[1:]
    corpus, tests = profiles.parts("published", data)[0]
    front_end = backbones.MobileNet.front_end
    x, y = frontends.extract(corpus, front_end), torch.tensor(corpus.events["label"].to_numpy())
    tested = {name: (frontends.extract(test, front_end), test.events["label"].array) for name, test in tests.items()}
    for seed in map(int, seeds or "012"):
        (config,) = profiles.load_profile("published").configs("mn04", "ce", seed)
        for numbers in ("same", "own"):
            net = train(config, x, y, numbers == "same")
            row = {"seed": seed, "numbers": numbers} | {name: scores(net, *pair) for name, pair in tested.items()}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
