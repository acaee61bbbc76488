"""Synthetic lung sounds with known truth, written in the owners' layouts and read back by the same loaders.

Not meant to train a clinical model: it lets the whole book run in minutes without any patient's recording. Breath noise
is band-passed and swells with inspiration and expiration; crackles are damped bursts (fine about 650 Hz, 5 ms; coarse
about 350 Hz, 15 ms; durations and pitches after Sovijarvi et al. 2000, Eur Respir Rev 10:585); wheezes are drifting
harmonic tones of 100-800 Hz lasting more than 80 ms.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from scipy import signal

from .. import paths

VERSION = 1
DEVICES = {  # low cut, high cut [Hz], gain, rate [Hz], how often it records train and test patients
    "AKGC417L": (60, 1900, 0.9, 4000, 0.55, 0.45),
    "Meditron": (20, 1800, 0.5, 4000, 0.35, 0.15),
    "Litt3200": (30, 900, 0.3, 4000, 0.10, 0.40),
}
PRIOR = (0.53, 0.27, 0.13, 0.07)


def breath(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """One breath of n samples: louder, higher inspiration, then softer, lower expiration."""
    noise = rng.standard_normal(n)
    t = np.linspace(0, 1, n)
    inspiration = np.clip(np.sin(np.pi * t / 0.45), 0, None) * (t < 0.45)
    expiration = 0.6 * np.clip(np.sin(np.pi * (t - 0.5) / 0.5), 0, None) * (t >= 0.5)
    high = signal.sosfilt(signal.butter(2, [120, 700], "bandpass", fs=rate, output="sos"), noise)
    low = signal.sosfilt(signal.butter(2, [80, 350], "bandpass", fs=rate, output="sos"), noise)
    return high * inspiration + low * expiration


def crackles(rng: np.random.Generator, n: int, rate: int, fine: bool) -> np.ndarray:
    """A train of damped bursts in the first half of the breath."""
    out, pitch, length = np.zeros(n), 650 if fine else 350, 0.005 if fine else 0.015
    for _ in range(rng.integers(5, 14)):
        t = np.arange(int(4 * length * rate)) / rate
        burst = np.exp(-t / length) * np.sin(2 * np.pi * pitch * rng.uniform(0.8, 1.2) * t)
        at = int(rng.uniform(0.05, 0.5) * n)
        stop = min(n, at + len(burst))
        out[at:stop] += rng.uniform(0.6, 1.4) * burst[: stop - at]
    return out


def wheeze(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """A drifting tone with two harmonics, mostly in expiration."""
    pitch = rng.uniform(150, 600)
    drift = pitch * (1 + 0.08 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * np.arange(n) / rate))
    phase = 2 * np.pi * np.cumsum(drift) / rate
    tone = np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.15 * np.sin(3 * phase)
    start, stop = int(rng.uniform(0.2, 0.5) * n), int(rng.uniform(0.8, 0.98) * n)
    envelope = np.zeros(n)
    envelope[start:stop] = signal.windows.tukey(stop - start, 0.3)
    return tone * envelope


def recording(rng, labels: list[int], device: str, snr_db: float, rate: int):
    """(samples, [(start s, end s, label, true SNR dB)]); SNR is breath and added sounds against ambient noise."""
    low, high, gain, *_ = DEVICES[device]
    pieces, times, at = [], [], 0.2
    pieces.append(np.zeros(int(at * rate)))
    for label in labels:
        n = int(rng.uniform(1.6, 3.4) * rate)
        clean = breath(rng, n, rate)
        clean /= np.abs(clean).max()
        if label in (1, 3):
            clean = clean + 1.2 * crackles(rng, n, rate, fine=bool(rng.integers(2)))
        if label in (2, 3):
            clean = clean + 0.5 * wheeze(rng, n, rate)
        pieces.append(clean)
        times.append((at, at + n / rate, label, snr_db))
        at += n / rate
    samples = np.concatenate(pieces)
    beats = np.zeros_like(samples)
    for k in np.arange(0.1, len(samples) / rate, 60 / rng.uniform(65, 95)):
        t = np.arange(int(0.12 * rate)) / rate
        start = int(k * rate)
        stop = min(len(beats), start + len(t))
        beats[start:stop] += (np.exp(-t / 0.03) * np.sin(2 * np.pi * 45 * t))[: stop - start]
    ambient = rng.standard_normal(len(samples))
    ambient *= np.sqrt(np.mean(samples**2) / np.mean(ambient**2)) * 10 ** (-snr_db / 20)
    mixed = samples + 0.3 * beats + ambient
    band = signal.butter(2, [low, min(high, 0.49 * rate)], "bandpass", fs=rate, output="sos")
    mixed = signal.sosfilt(band, mixed)
    return gain * 0.7 * mixed / np.abs(mixed).max(), times


def write(dest: Path, seed: int = 0, patients: int = 60, events: int = 40) -> Path:
    """Write icbhi/ and sprsound/ under ``dest``, with the truth of every clip in truth.csv. Deterministic by seed."""
    icbhi = dest / "icbhi" / "ICBHI_final_database"
    icbhi.mkdir(parents=True)
    splits, truth = [], []
    for patient in range(101, 101 + patients):
        rng = np.random.default_rng([seed, patient])
        split = "train" if rng.random() < 0.6 else "test"
        weights = np.array([d[4 if split == "train" else 5] for d in DEVICES.values()])
        device = str(rng.choice(list(DEVICES), p=weights / weights.sum()))
        rate = DEVICES[device][3]
        prior = rng.dirichlet(6 * np.array(PRIOR))
        name = f"{patient}_1b1_{rng.choice(['Al', 'Ar', 'Pl', 'Pr', 'Tc'])}_sc_{device}"
        samples, times = recording(rng, rng.choice(4, 7, p=prior).tolist(), device, rng.uniform(0, 25), rate)
        soundfile.write(icbhi / f"{name}.wav", samples, rate, subtype="PCM_16")
        lines = [f"{a:.3f}\t{b:.3f}\t{label & 1}\t{label >> 1}\n" for a, b, label, _ in times]
        (icbhi / f"{name}.txt").write_text("".join(lines))
        splits.append(f"{name}\t{split}\n")
        truth += [(f"{name}#{i:02d}", *row) for i, row in enumerate(times)]
    (dest / "icbhi" / "official_split.txt").write_text("".join(splits))
    names = ("Normal", "Fine Crackle", "Wheeze", "Wheeze+Crackle")
    for part, base in (("train", 1), ("inter", 2)):
        wavs = dest / "sprsound" / ("train2022_wav" if part == "train" else "test2022_wav")
        jsons = dest / "sprsound" / ("train2022_json" if part == "train" else "test2022_json/inter_test_json")
        wavs.mkdir(parents=True)
        jsons.mkdir(parents=True)
        for index in range(events):
            rng = np.random.default_rng([seed, 1000 * base + index])
            poor = rng.random() < 0.15
            snr = rng.uniform(-12, -3) if poor else rng.uniform(5, 25)
            labels = rng.choice(4, 3, p=PRIOR).tolist()
            samples, times = recording(rng, labels, "Meditron", snr, 8000)
            name = f"{base}{index // 2:07d}_{rng.uniform(1, 15):.1f}_{rng.integers(2)}_p{rng.integers(1, 5)}_{index}"
            soundfile.write(wavs / f"{name}.wav", samples, 8000, subtype="PCM_16")
            rows = [
                {"start": str(int(a * 1000)), "end": str(int(b * 1000)), "type": names[label]}
                for a, b, label, _ in times
            ]
            record = "Poor Quality" if poor else ("Normal" if not any(labels) else "CAS & DAS")
            content = {"record_annotation": record, "event_annotation": [] if poor else rows}
            (jsons / f"{name}.json").write_text(json.dumps(content))
            truth += [] if poor else [(f"{name}#{i:02d}", *row) for i, row in enumerate(times)]
    columns = ["event_id", "start_s", "end_s", "label", "snr_db"]
    pd.DataFrame(truth, columns=columns).to_csv(dest / "truth.csv", index=False)
    return dest


def ensure(root: str | Path | None = None) -> Path:
    """The synthetic corpora's folder, written on first use (into the cache unless a root is given)."""
    final = Path(root).expanduser() if root else paths.cache_dir() / f"synthetic-{VERSION}"
    if not (final / "truth.csv").is_file():
        part = final.with_name(f".{final.name}.{paths.os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        write(part)
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
    return final
