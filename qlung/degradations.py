"""Known damage in graded amounts: does a quality score fall as a recording gets worse, and how far does a method?"""

import dataclasses

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import audio, features, quality, scores
from .errors import QualityError
from .model import outputs

# From least to most damage; amounts in the unit named. Gain is no damage: a score of quality should not follow it.
LADDERS = {
    "noise": ("SNR [dB]", (30.0, 20.0, 10.0, 0.0, -10.0)),
    "clipping": ("share clipped", (0.001, 0.01, 0.05, 0.15, 0.3)),
    "lowpass": ("cut-off [Hz]", (1600.0, 1200.0, 800.0, 400.0, 200.0)),
    "dropouts": ("share lost", (0.02, 0.05, 0.1, 0.2, 0.4)),
    "gain": ("gain [dB]", (-5.0, -10.0, -15.0, -20.0, -25.0)),
}


@dataclasses.dataclass(frozen=True)
class Degradation:
    """One kind and amount of damage, the same every time: ``Degradation("noise", 10.0)(waveform, rate)``.

    Parameters
    ----------
    kind : {"noise", "clipping", "lowpass", "dropouts", "gain"}
        White noise below 2 kHz (so that it means the same at every rate) at ``amount`` dB SNR over the clip; the
        loudest share of samples cut off; all above ``amount`` Hz removed; pieces of 0.1 s set to zero; gain in dB.
    amount : float
    seed : int
        For noise and dropouts.
    """

    kind: str
    amount: float
    seed: int = 0

    def __post_init__(self):
        if self.kind not in LADDERS:
            raise QualityError(f"unknown degradation '{self.kind}': choose from {', '.join(LADDERS)}")

    def __call__(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Waveforms [B, n] -> degraded waveforms [B, n]."""
        return getattr(self, f"_{self.kind}")(waveform, sample_rate, torch.Generator().manual_seed(self.seed))

    def _noise(self, x: Tensor, rate: int, generator) -> Tensor:
        noise = _below(torch.randn(x.shape, generator=generator).to(x), rate, 2000.0)
        wanted = x.square().mean(-1, keepdim=True) * 10 ** (-self.amount / 10)
        return x + noise * (wanted / noise.square().mean(-1, keepdim=True)).sqrt()

    def _clipping(self, x: Tensor, rate: int, generator) -> Tensor:
        limit = x.abs().quantile(1 - self.amount, dim=-1, keepdim=True)
        return x.clamp(-limit, limit)

    def _lowpass(self, x: Tensor, rate: int, generator) -> Tensor:
        return _below(x, rate, self.amount)

    def _dropouts(self, x: Tensor, rate: int, generator) -> Tensor:
        piece = round(0.1 * rate)
        pieces = -(-x.shape[-1] // piece)
        order = torch.rand(len(x), pieces, generator=generator).argsort(-1)
        keep = (order >= round(self.amount * pieces)).repeat_interleave(piece, -1)[:, : x.shape[-1]]
        return x * keep.to(x)

    def _gain(self, x: Tensor, rate: int, generator) -> Tensor:
        return x * 10 ** (self.amount / 20)


@dataclasses.dataclass(frozen=True)
class Damaged:
    """A front end that hears damaged audio; ``features.extract`` takes it like any other and caches what it gives."""

    front_end: features.FrontEnd
    damage: Degradation
    code: str = dataclasses.field(default_factory=lambda: features.source_key(Degradation))

    @property
    def sample_rate(self) -> int:
        """Of the front end behind it [Hz]."""
        return self.front_end.sample_rate

    @property
    def seconds(self) -> float:
        """Of the front end behind it [s]."""
        return self.front_end.seconds

    def half(self, waveform: Tensor) -> np.ndarray:
        """Features of the damaged waveforms [B, ...] in float16."""
        return self.front_end.half(self.damage(waveform, self.sample_rate))


def _below(x: Tensor, rate: int, hertz: float) -> Tensor:
    spectrum = torch.fft.rfft(x)
    spectrum[..., torch.fft.rfftfreq(x.shape[-1], 1 / rate) > hertz] = 0
    return torch.fft.irfft(spectrum, x.shape[-1])


def sample(corpus, clips: int, seed: int = 0):
    """The corpus with ``clips`` of its events, drawn evenly at random, for measurements that need not hear all."""
    chosen = np.random.default_rng(seed).permutation(len(corpus.events))[:clips]
    return dataclasses.replace(corpus, events=corpus.events.iloc[np.sort(chosen)].reset_index(drop=True))


def ladder(corpus, ladders: dict = LADDERS) -> pd.DataFrame:
    """Every clip undamaged ("none", step 0) and on every rung of the ladders, measured; cached.

    Returns
    -------
    DataFrame
        One row a clip and rung: event_id, kind, step (0 to 5), amount, H, R [dBFS], then ``scores.FEATURES`` and
        ``scores.DIRECTION``.
    """
    rungs = [("none", 0, np.nan)]
    rungs += [(kind, step, a) for kind, (_, amounts) in ladders.items() for step, a in enumerate(amounts, 1)]
    key = {"corpus": corpus.fingerprint(), "rungs": rungs[1:]}
    key["code"] = features.source_key(Degradation, scores.signal_scores, quality.spectral_entropy, audio.fade)
    columns = ["H", "R", *scores.FEATURES, *scores.DIRECTION]

    def build() -> np.ndarray:
        out = []
        for high, low in zip(*(audio.batches(corpus, rate, 8.0) for rate in (quality.RATE, scores.RATE)), strict=True):
            for kind, _, amount in rungs:
                a, b = high, low
                if kind != "none":
                    a, b = (Degradation(kind, amount)(x, r) for x, r in ((high, quality.RATE), (low, scores.RATE)))
                h = quality.spectral_entropy(a, quality.RATE, **quality.DEFAULT_READING)
                told = torch.stack(list(scores.signal_scores(b).values()), 1)
                out.append(torch.cat([torch.stack([h, quality.rms_dbfs(a)], 1), scores.band_features(b), told], 1))
        batches = [torch.stack(out[i : i + len(rungs)], 1) for i in range(0, len(out), len(rungs))]
        return torch.cat(batches).double().numpy()  # [clips, rungs, columns]

    values = features.cached_array("ladder", key, build)
    index = pd.MultiIndex.from_product([corpus.events["event_id"], range(len(rungs))], names=["event_id", "rung"])
    table = pd.DataFrame(values.reshape(-1, len(columns)), index=index, columns=columns).reset_index()
    named = pd.DataFrame(rungs, columns=["kind", "step", "amount"]).rename_axis("rung").reset_index()
    return named.merge(table, on="rung").drop(columns="rung")


def answers(networks: dict, corpus, ladders: dict) -> pd.DataFrame:
    """What finished networks answer to a corpus undamaged ("none", step 0) and on every rung of the ladders.

    Networks never heard such damage in training, and nothing is fitted to it.

    Parameters
    ----------
    networks : dict of (method, seed) -> Model
        As ``experiments.networks`` gives them, all with the same front end.
    corpus : Corpus
    ladders : dict
        Kinds and amounts as in ``LADDERS``.

    Returns
    -------
    DataFrame
        One row a network, rung and event: method, seed, kind, step, amount, event_id, patient_id, label, predicted.
    """
    plain = next(iter(networks.values())).encoder.front_end
    rungs = [("none", 0, np.nan, plain)]
    for kind, (_, amounts) in ladders.items():
        rungs += [(kind, step, a, Damaged(plain, Degradation(kind, a))) for step, a in enumerate(amounts, 1)]
    patients = corpus.recordings.set_index("recording_id")["patient_id"]
    events = corpus.events[["event_id", "label"]].assign(patient_id=corpus.events["recording_id"].map(patients))
    out = []
    for kind, step, amount, front_end in rungs:
        x = features.extract(corpus, front_end)
        for (method, seed), network in networks.items():
            predicted = outputs(network, x)[0].argmax(1).numpy()
            told = {"method": method, "seed": seed, "kind": kind, "step": step, "amount": amount}
            out.append(events.assign(**told, predicted=predicted))
    return pd.concat(out, ignore_index=True)


def follows(table: pd.DataFrame, column: str, kinds=tuple(LADDERS), draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Does a score fall as damage grows? Spearman's rho between step and score, within each clip, averaged.

    Steps that differ by less than a hundredth of the undamaged clips' sd count as equal: processors round differently,
    and what only rounding moves follows nothing.

    Parameters
    ----------
    table : DataFrame
        From ``ladder``, with ``column`` added where it is not there.
    column : str

    Returns
    -------
    DataFrame
        kind, clips, rho (mean over clips; -1: falls at every step), low, high (95 %, clips resampled), change (mean of
        the last step minus undamaged, in undamaged sds) and monotone: share of clips that never rise.
    """
    rng, rows = np.random.default_rng(seed), []
    clean = table[table["kind"] == "none"].set_index("event_id")[column]
    spread = clean.std()
    grain = 1e-2 * spread if spread > 0 else 1.0
    for kind in kinds:
        steps = table[table["kind"] == kind].pivot_table(index="event_id", columns="step", values=column)
        values = pd.concat([clean.rename(0), steps], axis=1).dropna().to_numpy()
        order = values.argsort(1)
        apart = np.diff(np.take_along_axis(values, order, 1)) > grain  # neighbours closer than a grain are one level
        levels = np.zeros_like(values)
        np.put_along_axis(levels, order[:, 1:], apart.cumsum(1), 1)
        ranks = pd.DataFrame(levels).rank(axis=1).to_numpy()
        ranks = ranks - ranks.mean(1, keepdims=True)
        wanted = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
        length = np.sqrt((ranks**2).sum(1) * (wanted**2).sum())
        rho = np.where(length > 0, ranks @ wanted / np.where(length > 0, length, 1), 0)  # never moves: follows nothing
        means = rho[rng.integers(len(rho), size=(draws, len(rho)))].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        change = (values[:, -1] - values[:, 0]).mean() / spread if spread > 0 else np.nan
        never = (np.diff(levels) <= 0).all(1).mean()
        rows.append((kind, len(rho), rho.mean(), low, high, change, never))
    return pd.DataFrame(rows, columns=["kind", "clips", "rho", "low", "high", "change", "monotone"])
