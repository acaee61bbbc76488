"""Synthetic lung sounds with known truth, written in the owners' layouts and read back by the same loaders.

Not for clinical models: with it the whole book runs in minutes without any patient's recording, and each clip's
signal-to-noise ratio and degradation are known exactly, which no annotation gives.

What is modelled, after Sovijarvi et al. 2000 (Eur Respir Rev 10:585, 10:591) and Bohadana et al. 2014 (N Engl J Med
370:744): vesicular breath noise, louder and higher in inspiration; fine crackles (about 650 Hz, 5 ms, late in
inspiration) and coarse ones (about 350 Hz, 15 ms, early in both phases); wheezes (drifting harmonic tones above 100 Hz,
longer than 80 ms, mostly in expiration), rhonchi (below 200 Hz, rich in harmonics) and stridor (high, in inspiration);
heart sounds; ambient noise; and a stethoscope's band, resonance and gain. Patients have their own rate, pitch, loudness
and mix of sounds. Devices depend on the split as in ICBHI, whose cycles give the shares below.
"""

import collections
import dataclasses
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import scipy  # scipy.signal is loaded when it is first used: reading needs none of it
import soundfile

from .. import paths
from ..errors import CorpusError
from . import icbhi, sprsound
from .registry import Source, register
from .tables import Corpus

VERSION = 2
PRIOR = (0.53, 0.27, 0.13, 0.07)  # normal, crackle, wheeze, both: about ICBHI's
POOR = 0.15
DEGRADATIONS = (("none", "clipping", "dropout"), None, True, (0.7, 0.15, 0.15))  # rng.choice's arguments


# Band [Hz], resonance [Hz] and its height, gain, rate [Hz], and its cycles in ICBHI's train and test.
Device = collections.namedtuple("Device", "low high resonance height gain rate train test")
DEVICES = {
    "AKGC417L": Device(60, 1900, 900, 0.3, 0.9, 4000, 2510, 1836),
    "Meditron": Device(20, 1500, 150, 0.8, 0.5, 4000, 997, 459),
    "LittC2SE": Device(30, 1000, 120, 1.5, 0.6, 4000, 594, 0),
    "Litt3200": Device(30, 700, 80, 1.0, 0.3, 4000, 41, 461),
}
CHILD_DEVICE = Device(40, 850, 250, 1.2, 0.6, 8000, 0, 0)
Patient = collections.namedtuple("Patient", "breath_s corner_hz loudness pitch_hz heart_bpm heart")


def draw_patient(rng: np.random.Generator, child: bool = False) -> Patient:
    """Traits that all of a patient's recordings share; a child breathes faster and sounds higher than an adult."""
    return Patient(
        breath_s=rng.uniform(0.9, 1.8) if child else rng.uniform(1.8, 3.2),
        corner_hz=rng.uniform(220, 380) * (1.4 if child else 1), loudness=rng.uniform(0.5, 1.0),
        pitch_hz=rng.uniform(180, 500) * (1.3 if child else 1),
        heart_bpm=rng.uniform(90, 130) if child else rng.uniform(60, 95), heart=rng.uniform(0.1, 0.5),
    )  # fmt: skip


def colour(device: Device, x: np.ndarray) -> np.ndarray:
    """The sound behind a device; linear, so that parts may be filtered one by one."""
    band = scipy.signal.butter(4, [device.low, device.high], "bandpass", fs=device.rate, output="sos")
    b, a = scipy.signal.iirpeak(device.resonance, 2.0, fs=device.rate)
    x = scipy.signal.sosfilt(band, x)
    return x + device.height * scipy.signal.lfilter(b, a, x)


def _db(x: np.ndarray, y: np.ndarray) -> float:
    return round(10 * float(np.log10(np.mean(x**2) / np.mean(y**2))), 2)


def breath(rng: np.random.Generator, n: int, rate: int, corner: float) -> np.ndarray:
    """One breath of n samples: noise that falls by 12 dB an octave above ``corner`` [Hz]; expiration soft and low."""
    t = np.linspace(0, 1, n)
    inspiration = np.clip(np.sin(np.pi * t / 0.42), 0, None) * (t < 0.42)
    expiration = 0.5 * np.sin(np.pi * np.clip((t - 0.46) / 0.5, 0, 1) ** 0.6)  # loudest early, then it dies away
    out = np.zeros(n)
    for envelope, top in ((inspiration, corner), (expiration, 0.6 * corner)):
        band = scipy.signal.butter(2, [70, top], "bandpass", fs=rate, output="sos")
        noise = scipy.signal.sosfilt(band, rng.standard_normal(n))
        out += envelope * (noise / np.sqrt(np.mean(noise**2)))
    return out


def crackles(rng: np.random.Generator, n: int, rate: int, fine: bool) -> np.ndarray:
    """Damped bursts whose period grows: fine ones many and late in inspiration, coarse ones few and in both phases."""
    pitch, length = (650, 0.005) if fine else (350, 0.015)
    out = np.zeros(n)
    for _ in range(rng.integers(7, 15) if fine else rng.integers(4, 9)):
        t = np.arange(int(3 * length * rate)) / rate
        wave = np.sin(2 * np.pi * pitch * rng.uniform(0.8, 1.2) * t / (1 + t / (4 * length)))
        burst = np.minimum(1, t / 0.0005) * np.exp(-t / (length / 2)) * wave
        at = rng.uniform(0.18, 0.40) if fine else rng.choice([rng.uniform(0.04, 0.25), rng.uniform(0.5, 0.75)])
        start = min(int(at * n), n - len(burst))
        out[start : start + len(burst)] += rng.uniform(0.6, 1.4) * burst
    return out


def tone(rng: np.random.Generator, n: int, rate: int, pitch: float, harmonics, span: tuple[float, float]) -> np.ndarray:
    """A drifting harmonic tone over part of a breath (shares of its length); harmonics above the band are left out."""
    t, envelope = np.arange(n) / rate, np.zeros(n)
    drift = pitch * (1 + 0.06 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * t + rng.uniform(0, 6)) - 0.05 * t / t[-1])
    phase = 2 * np.pi * np.cumsum(drift) / rate
    made = sum(a * np.sin(k * phase) for k, a in enumerate(harmonics, 1) if k * pitch * 1.1 < 0.48 * rate)
    start, stop = int(span[0] * n), int(span[1] * n)
    envelope[start:stop] = scipy.signal.windows.tukey(stop - start, 0.35)
    return made * envelope


def continuous(rng: np.random.Generator, n: int, rate: int, kind: str, pitch: float) -> np.ndarray:
    """A wheeze (sometimes two notes at once), a rhonchus or a stridor."""
    late = (rng.uniform(0.46, 0.6), rng.uniform(0.8, 0.96))
    if kind == "Rhonchi":
        return tone(rng, n, rate, rng.uniform(90, 160), (1, 0.8, 0.6, 0.45, 0.3, 0.2), late)
    if kind == "Stridor":
        return 1.3 * tone(rng, n, rate, rng.uniform(550, 850), (1, 0.3), (0.05, 0.4))
    out = tone(rng, n, rate, pitch * rng.uniform(0.9, 1.1), (1, 0.35, 0.12), late)
    if rng.random() < 0.3:
        out = out + 0.7 * tone(rng, n, rate, pitch * rng.uniform(1.25, 1.45), (1, 0.3), late)
    return out


def heart(rng: np.random.Generator, n: int, rate: int, bpm: float) -> np.ndarray:
    """First and second heart sounds: short bursts of about 45 and 60 Hz."""
    out, beat = np.zeros(n + rate), 60 / bpm  # a second longer than returned: the last beat may end in it
    for k in np.arange(rng.uniform(0, beat), n / rate, beat):
        for after, pitch, length in ((0.0, 45, 0.04), (0.36 * beat, 60, 0.03)):
            t = np.arange(int(4 * length * rate)) / rate
            start = int((k + after) * rate)
            out[start : start + len(t)] += t / length * np.exp(1 - t / length) * np.sin(2 * np.pi * pitch * t)
    return out[:n]


def ambient(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """Room and friction noise: falls by 4.5 dB an octave, swells slowly."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum /= np.maximum(np.fft.rfftfreq(n, 1 / rate), 20) ** 0.75
    return np.fft.irfft(spectrum, n) * (1 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.05, 0.2) * np.arange(n) / rate))


def degrade(rng: np.random.Generator, x: np.ndarray, rate: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(samples, which of them were degraded): "clipping" cuts peaks, "dropout" silences gaps of 20-150 ms."""
    degraded = np.zeros(len(x), bool)
    if kind == "clipping":
        ceiling = np.abs(x).max() * rng.uniform(0.15, 0.4)
        return np.clip(x, -ceiling, ceiling), np.abs(x) >= ceiling
    if kind == "dropout":
        for start in rng.uniform(0, len(x) / rate, rng.integers(3, 9)):
            degraded[int(start * rate) : int((start + rng.uniform(0.02, 0.15)) * rate)] = True
    return np.where(degraded, 0.0, x), degraded


def recording(rng, kinds: list[tuple], patient: Patient, device: Device, snr_db: float, degradation: str = "none"):
    """One recording of one breath per entry of ``kinds`` (label, names of the added sounds).

    Returns
    -------
    samples : array [n, range -1..1]
    truth : list of dict
        Per breath: start_s, end_s, label, snr_db (breath and added sounds against ambient noise, both behind the
        device, within this clip), heart_db (the same for heart sounds), sound, degradation, amount (share of degraded
        samples).
    """
    rate, pieces = device.rate, [np.zeros(int(0.2 * device.rate))]
    for _, names in kinds:
        n = int(patient.breath_s * rng.uniform(0.85, 1.15) * rate)
        clean = breath(rng, n, rate, patient.corner_hz)
        for name in names:
            if "Crackle" in name:
                clean = clean + 5.0 * crackles(rng, n, rate, fine=name.startswith("Fine"))
            else:
                clean = clean + 1.6 * continuous(rng, n, rate, name, patient.pitch_hz)
        pieces.append(clean)
    ends = np.cumsum([len(piece) for piece in pieces]).tolist()
    lung = colour(device, np.concatenate(pieces))
    beats = colour(device, heart(rng, len(lung), rate, patient.heart_bpm) * patient.heart * 6)
    noise = colour(device, ambient(rng, len(lung), rate))
    noise *= np.sqrt(np.mean(lung**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    mixed, degraded = degrade(rng, lung + beats + noise, rate, degradation)
    truth = [
        {"start_s": round(a / rate, 3), "end_s": round(b / rate, 3), "label": label,
         "snr_db": _db(lung[a:b], noise[a:b]), "heart_db": _db(lung[a:b], beats[a:b]),
         "sound": "+".join(names) or "Normal",
         "degradation": degradation if degraded[a:b].any() else "none", "amount": round(float(degraded[a:b].mean()), 4)}
        for a, b, (label, names) in zip(ends, ends[1:], kinds, strict=False)
    ]  # fmt: skip
    return 0.9 * device.gain * patient.loudness * mixed / np.abs(mixed).max(), truth


def draw_kinds(rng: np.random.Generator, count: int, prior) -> list[tuple]:
    """Labels and the names of the sounds that make them."""
    out = []
    for label in rng.choice(4, count, p=prior).tolist():
        crackle = str(rng.choice(["Fine Crackle", "Coarse Crackle"], p=[0.75, 0.25]))
        tonal = str(rng.choice(["Wheeze", "Rhonchi", "Stridor"], p=[0.8, 0.12, 0.08])) if label == 2 else "Wheeze"
        out.append((label, ((), (crackle,), (tonal,), (crackle, tonal))[label]))
    return out


def write(dest: Path, seed: int = 0, patients: int = 60, events: int = 40) -> Path:
    """Write icbhi/ and sprsound/ under ``dest``, and what is true of every clip in truth.csv. Deterministic by seed.

    ``patients`` ICBHI-like recordings, one per patient, of seven breaths; and ``events`` SPRSound-like recordings in
    each of train and inter_test, two per child, of three breaths.
    """
    truth = _write_icbhi(dest / "icbhi", seed, patients) + _write_sprsound(dest / "sprsound", seed, events)
    pd.DataFrame(truth).to_csv(dest / "truth.csv", index=False)
    return dest


def _write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    content = io.BytesIO()  # of a full disk, soundfile says no more than "System error."
    soundfile.write(content, samples, rate, subtype="PCM_16", format="WAV")
    path.write_bytes(content.getvalue())


def _write_icbhi(base: Path, seed: int, patients: int) -> list[dict]:
    folder, splits, truth = base / "ICBHI_final_database", [], []
    folder.mkdir(parents=True)
    ranks = np.random.default_rng(seed).permutation(patients)
    for number, rank in enumerate(ranks, 101):
        rng = np.random.default_rng([seed, number])
        split = "train" if rank < 0.6 * patients else "test"
        shares = np.array([getattr(device, split) for device in DEVICES.values()], float)
        name = str(rng.choice(list(DEVICES), p=shares / shares.sum()))
        kinds = draw_kinds(rng, 7, rng.dirichlet(6 * np.array(PRIOR)))
        snr, kind = rng.uniform(0, 25), str(rng.choice(*DEGRADATIONS))
        samples, times = recording(rng, kinds, draw_patient(rng), DEVICES[name], snr, kind)
        stem = f"{number}_1b1_{rng.choice(['Al', 'Ar', 'Pl', 'Pr', 'Ll', 'Lr'])}_sc_{name}"
        _write_wav(folder / f"{stem}.wav", samples, DEVICES[name].rate)
        rows = [f"{t['start_s']:.3f}\t{t['end_s']:.3f}\t{t['label'] & 1}\t{t['label'] >> 1}\n" for t in times]
        (folder / f"{stem}.txt").write_text("".join(rows), encoding="utf-8")
        splits.append(f"{stem}\t{split}\n")
        truth += [{"event_id": f"{stem}#{i:02d}", **row, "device": name} for i, row in enumerate(times)]
    (base / "official_split.txt").write_text("".join(splits), encoding="utf-8")
    return truth


def _write_sprsound(base: Path, seed: int, count: int) -> list[dict]:
    truth = []
    for number, part in enumerate(("train", "inter"), 1):
        wavs, jsons = (base / name for name in sprsound.PARTS[part][0])
        wavs.mkdir(parents=True)
        jsons.mkdir(parents=True)
        for index in range(count):
            child = draw_patient(np.random.default_rng([seed, 1000 * number, index // 2]), child=True)
            rng = np.random.default_rng([seed, 1000 * number + index])
            poor = rng.random() < POOR
            kinds = draw_kinds(rng, 3, PRIOR)
            snr, kind = rng.uniform(-12, -3) if poor else rng.uniform(5, 25), str(rng.choice(*DEGRADATIONS))
            samples, times = recording(rng, kinds, child, CHILD_DEVICE, snr, kind)
            stem = f"{number}{index // 2:07d}_{rng.uniform(1, 15):.1f}_{rng.integers(2)}_p{rng.integers(1, 5)}_{index}"
            _write_wav(wavs / f"{stem}.wav", samples, CHILD_DEVICE.rate)
            times = [] if poor else times
            rows = [
                {"start": str(round(1000 * t["start_s"])), "end": str(round(1000 * t["end_s"])),
                 "type": "Wheeze+Crackle" if t["label"] == 3 else t["sound"]} for t in times
            ]  # fmt: skip
            record = "Poor Quality" if poor else "CAS & DAS" if any(label for label, _ in kinds) else "Normal"
            content = json.dumps({"record_annotation": record, "event_annotation": rows})
            (jsons / f"{stem}.json").write_text(content, encoding="utf-8")
            truth += [{"event_id": f"{stem}#{i:02d}", **row, "device": "YunTing"} for i, row in enumerate(times)]
    return truth


def truth(root: str | Path | None = None) -> pd.DataFrame:
    """What is true of every clip of the synthetic corpora, one row per event_id; see ``recording`` for the columns."""
    return pd.read_csv(ensure(root) / "truth.csv", dtype={"event_id": str})


def ensure(root: str | Path | None = None) -> Path:
    """The synthetic corpora's folder, written on first use (into the cache unless a root is given); never replaced."""
    final = Path(root).expanduser() if root else paths.cache_dir() / f"synthetic-{VERSION}"
    if not (final / "truth.csv").is_file():
        final.parent.mkdir(parents=True, exist_ok=True)
        with paths.naming(final), tempfile.TemporaryDirectory(prefix=f".{final.name}.", dir=final.parent) as folder:
            made = write(Path(folder) / "made")
            try:
                made.rename(final)
            except OSError as error:  # something is there: another process was quicker, or it is not ours to replace
                if not (final / "truth.csv").is_file():
                    raise CorpusError(f"'{final}' is there and holds other things; name another folder") from error
    return final


def _register(kind: str, loader, **made) -> None:
    def read(root: Path | None, subset: str | None) -> Corpus:
        return dataclasses.replace(loader.read(ensure(root) / kind, subset, **made), name=f"synthetic-{kind}")

    register(Source(f"synthetic-{kind}", read, recorded=False, labels=loader.LABELS))


_register("icbhi", icbhi)
_register("sprsound", sprsound, parts=("train", "inter"))
