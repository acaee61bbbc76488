"""Recordings of your own: their windows, the quality of each, and what a finished network answers. Notebook 09.

Windows are KAUH's (`corpora.kauh.windows`): 8 s, a new one every 4 s, and a recording's probabilities are their mean.
"""

import collections
import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import nbconvert
import nbformat
import numpy as np
import pandas as pd
import soundfile
import soxr
import torch
from safetensors.torch import load_model
from torch.nn import functional as F

from .. import corpora, paths, quality
from ..audio import fade, fit_length, mono
from ..audio.degrade import degraded
from ..corpora import CLASSES, kauh, wav
from ..corpora.tables import SHORTEST_S
from ..errors import AudioError, ConfigError, TrainingError
from ..margins import Objective
from ..training import Config, Model, profiles, runs
from . import notebooks, results

COMMITTED = paths.ROOT / "network"  # such a folder as `Network` reads
FORMATS = (".wav", ".flac", ".ogg", ".mp3")
OTHERS = {b"ftyp": "an MP4 or QuickTime file", b"\x1aE\xdf\xa3": "a Matroska or WebM file", b"AVI ": "an AVI video",
          b"%PDF": "a PDF", b"PK\3\4": "a zip file", b"<": "a web page"}  # fmt: skip
AFTER_S = 1.0  # read behind a window, and a hop before it: a block's own ends, resampled and faded, are not in it
UNUSED = "encoder.classifier."  # AudioSet's tags, which no answer needs
COLUMNS = ["start_s", "end_s", "H", "R", "AQS", "H rank", "R rank", "AQS rank", *(f"margin {c}" for c in CLASSES),
           *(f"P {c}" for c in CLASSES), "nearest", "cosine"]  # fmt: skip


class Network:
    """A finished run's network, and its training clips, with which recordings are compared.

    ``folder`` holds run.json and model.safetensors of a run, and clips.parquet, a row per training clip: corpus,
    event_id, patient_id, label, sample_rate, H, R [dBFS], and its embedding, e0, e1, ... ConfigError if it doesn't.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            c = results.settings(json.loads((folder / "run.json").read_text(encoding="utf-8")))
            self.config = c = dataclasses.replace(c, pretrained=c.backbone == "mn04_frozen")  # else all is in the run's
            self.model, self.clips = Model(c).eval(), pd.read_parquet(folder / "clips.parquet")
            missing, unknown = load_model(self.model, folder / "model.safetensors", strict=False)
            if lacking := [*unknown, *(name for name in missing if not name.startswith(UNUSED))]:
                raise ValueError(f"other weights than those of {c.backbone}, first {lacking[0]}")
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ConfigError(f"'{folder}' holds no network: {type(error).__name__}: {error}") from error
        h, r, patient = (self.clips[name].to_numpy() for name in ("H", "R", "patient_id"))
        self.scorer = quality.QualityScorer(c.alpha, c.beta, c.normalise).fit(h, r)
        self.clips["AQS"] = self.scorer.score(h, r)
        self.margin = Objective(c, np.bincount(self.clips["label"], minlength=4)).qlung.margin
        self.embeddings = F.normalize(torch.tensor(self.clips.filter(regex=r"^e\d+$").to_numpy("float32")))
        same = torch.from_numpy(patient[:, None] == patient)
        nearest = (self.embeddings @ self.embeddings.T).masked_fill(same, -1).amax(1)
        self.least = nearest.quantile(0.01).item()  # 99 % of the training clips are as near to another patient's

    @property
    def about(self) -> str:
        """What it was trained on, and what it is not good for."""
        corpus, patients = corpora.find(self.clips["corpus"].iloc[0]), self.clips["patient_id"].nunique()
        if not corpus.recorded:
            return f"{self.config.name}: trained on synthetic sound: its answer says nothing about a patient."
        trained = f"trained on {patients} patients of {corpus.name} ({corpus.entry.get('terms', 'terms unknown')})"
        return f"{self.config.name}: {trained}. Not a medical device: nothing about a patient may be decided with it."

    @torch.inference_mode()
    def answer(self, block: np.ndarray, rate: int, start: float, end: float) -> dict:
        """What is found in a window of a block of samples, `COLUMNS` without the times; nothing where it is silent.

        H, R [dBFS], AQS; their rank, the share of training clips below; margin [rad] and probability P of each class;
        ids of the three nearest training clips, and their cosines.
        """

        def clip(to: int, seconds: float, pad: str) -> torch.Tensor:  # as `audio.cut` makes it
            whole = fade(block if to == rate else soxr.resample(block, rate, to), to)
            return torch.from_numpy(fit_length(whole[round(start * to) : round(end * to)], to, seconds, pad))[None]

        sound = clip(quality.RATE, 8.0, "repeat")
        h, r = quality.spectral_entropy(sound, quality.RATE, **quality.DEFAULT_DEFINITION), quality.rms_dbfs(sound)
        if not h.isfinite():
            return {}
        row = {"H": h.item(), "R": r.item(), "AQS": self.scorer.score(h, r).item()}
        row |= {f"{name} rank": float((self.clips[name] < value).mean()) for name, value in row.items()}
        front_end, c = self.model.encoder.front_end, self.config
        wave = clip(front_end.sample_rate, front_end.seconds, c.pad)
        wave = degraded(wave, front_end.sample_rate, "lowpass", c.band_hz) if c.band_hz else wave
        filled = torch.tensor([min((end - start) / front_end.seconds, 1)]) if c.pad == "silence" else None
        x = front_end(wave).half().float()  # as `frontends.extract` keeps it
        margins, p = self.margin(torch.arange(4), row["AQS"]), self.model(x, filled)[0].softmax(1)[0]
        row |= {f"margin {name}": value for name, value in zip(CLASSES, margins.tolist(), strict=True)}
        row |= {f"P {name}": value for name, value in zip(CLASSES, p.tolist(), strict=True)}
        cosine, at = (self.embeddings @ F.normalize(self.model.encoder(x, filled).float())[0]).topk(3)
        return row | {"nearest": self.clips["event_id"].iloc[at].tolist(), "cosine": cosine.tolist()}


def load(profile: str = "", data: str = "", folder: str = "") -> Network:
    """The network in a folder; else the committed one, where there is one and no profile is named; else a profile's.

    That ("demo" by default) is its run of QLung with seed 0 and its first backbone; TrainingError if that is not
    finished. What is known of its training clips is computed once, and lies beside it.
    """
    if folder or (not profile and COMMITTED.is_dir()):
        return Network(Path(folder or COMMITTED))
    study = profiles.load_profile(profile or "demo")
    config = study.configs(method="qlung", seed=0)[0]
    train, tests = profiles.parts(study.name, data if study.recorded else "")[0]
    home = runs.run_folder(study.name, config, train, tests)
    if not runs.is_finished(home):
        raise TrainingError(f"profile '{study.name}' has no finished run {config.name}: `make reproduce` first")
    if not (home / "clips.parquet").is_file():
        paths.write_atomically(home / "clips.parquet", clips_of(home, config, train).to_parquet)
    return Network(home)


@torch.inference_mode()
def clips_of(home: Path, config: Config, train: corpora.Corpus) -> pd.DataFrame:
    """What `Network` knows of its training clips, computed from them and a finished run's weights."""
    load_model(model := Model(config).eval(), home / "model.safetensors")
    x, filled = (v if v is None else torch.from_numpy(v.astype("float32")) for v in model.features(train))
    clips = torch.arange(len(x)).split(32)
    embeddings = torch.cat([model.encoder(x[i], filled if filled is None else filled[i]) for i in clips])
    known = {name: train.of_events(name) for name in ("patient_id", "sample_rate")} | {"corpus": train.name}
    known |= dict(zip("HR", quality.measure(train).T, strict=True))
    near = pd.DataFrame(embeddings.float().numpy(), train.events.index).add_prefix("e")
    return train.events[["event_id", "label"]].assign(**known).join(near)


def find(named: list[str], data: str = "") -> list[tuple[str, Path, list[dict]]]:
    """(name, path, annotated cycles) of every file, of every one below a folder, and of CORPUS:RECORDING."""
    out = []
    for name in named:
        corpus, _, recording = name.partition(":")
        if (path := Path(name).expanduser()).is_dir():
            files = [file for file in sorted(path.rglob("[!.]*")) if file.suffix.lower() in FORMATS]
            out += [(str(file), file, []) for file in files]
            if not files:
                raise ConfigError(f"'{name}' holds no recording: expected {', '.join(FORMATS)}")
        elif path.exists() or corpus not in (*corpora.sources(), "synthetic"):
            out.append((name, path, []))
        else:
            tables = corpora.load_corpus(corpus, data if corpora.find(corpus).recorded else None)
            row, cycles = (t[t["recording_id"] == recording] for t in (tables.recordings, tables.events))
            if row.empty:
                one = tables.recordings["recording_id"].iloc[0]
                raise ConfigError(f"{corpus} has no usable recording '{recording}' here; it has {one}")
            out.append((name, Path(row["path"].iloc[0]), cycles[["start_s", "end_s", "label"]].to_dict("records")))
    return out


def blocks(file: soundfile.SoundFile, met: collections.Counter) -> Iterator[tuple[float, np.ndarray]]:
    """(beginning [s], mono samples) of blocks of 13 s, one every 4 s; ``met`` counts what was met in them.

    A file is read once, in order, a block at most. (`SoundFile.blocks` goes on with old samples where an MP3 is cut.)
    """
    size, hop = (round(s * file.samplerate) for s in (kauh.HOP_S + kauh.WINDOW_S + AFTER_S, kauh.HOP_S))
    at, held = 0.0, np.empty((0, file.channels), np.float32)
    while True:
        new = file.read(size - len(held), dtype="float32", always_2d=True)
        met["samples"] += len(new)
        met["not finite"] += int((~np.isfinite(new)).any(1).sum())
        met["full"] += int((np.abs(new) > 0.999).any(1).sum())
        held = np.concatenate([held, new])
        yield at, mono(held)
        if len(held) < size:
            return
        at, held = at + kauh.HOP_S, held[hop:]


def listen(name: str, path: Path, network: Network, cycles: list[dict]) -> dict:
    """What a network answers to a recording, and in what it is unlike the training recordings.

    Returns
    -------
    dict
        name, sample_rate, duration_s, windows (start_s, end_s, and what `Network.answer` gives), answer (a class; None
        where all is silent), p (class -> probability), nearest (training clip -> cosine), remarks (sentences), cycles.
        AudioError if it is no sound, damaged, or shorter than 10 ms: what it is, and what was expected.
    """
    met, windows = collections.Counter(), []
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels, stated = file.samplerate, file.channels, file.frames
            if not wav.LOWEST_RATE <= rate <= wav.HIGHEST_RATE or channels > wav.MOST_CHANNELS:
                raise AudioError(f"'{name}' has {rate} Hz and {channels} channels: expected a mono or stereo recording")
            for at, block in blocks(file, met):
                if met["samples"] < SHORTEST_S * rate:
                    raise AudioError(f"'{name}' holds {len(block)} samples at {rate} Hz: expected 10 ms or more")
                for start, end in kauh.windows(len(block) / rate)[at > 0 : 2]:
                    times = {"start_s": at + start, "end_s": at + end}
                    windows.append(times | network.answer(block, rate, start, end))
    except (soundfile.SoundFileError, OSError) as error:
        head = b""
        with contextlib.suppress(OSError), path.open("rb") as file:
            head = file.read(12).lstrip()
        kinds = [kind for sign, kind in OTHERS.items() if sign in (head[: len(sign)], head[4:8], head[8:])]
        what = f"is {kinds[0]}" if kinds else f"cannot be read ({error})" if path.exists() else "is not there"
        raise AudioError(f"'{name}' {what}: expected WAV, FLAC, OGG or MP3") from error
    heard, n, train = table({"windows": windows}).dropna(), len(windows), network.clips
    rates, full, silent = sorted(set(train["sample_rate"])), met["full"] / met["samples"], n - len(heard)
    far = sum(cosines[0] < network.least for cosines in heard["cosine"])
    remarks = {
        f"{channels} channels, averaged": channels > 1,
        f"cut short: its header states {stated} samples, {met['samples']} are there": met["samples"] < stated,
        f"{met['not finite']} samples are not finite: set to 0": met["not finite"],
        f"{full:.0%} of the samples are at full scale: clipped": full > wav.CLIPPED,
        f"{silent} of {n} windows are silent: no AQS can be computed, and no answer is given": silent,
        f"recorded at {rate} Hz, unlike the training recordings ({', '.join(map(str, rates))} Hz)": rate not in rates,
        f"{far} of {n} windows are further from any training clip than 99 % of these from other patients' clips": far,
    }
    for key, unit in (("H", ""), ("R", " dBFS"), ("AQS", "")):
        low, high = train[key].min(), train[key].max()
        outside, limits = int((~heard[key].between(low, high)).sum()), f"{low:.2f} to {high:.2f}{unit}"
        remarks[f"{outside} of {n} windows have {key} outside of the training clips' {limits}"] = outside
    p = {name: float(heard[f"P {name}"].mean()) for name in CLASSES} if len(heard) else {}
    near = heard.explode(["nearest", "cosine"]).sort_values("cosine", ascending=False).drop_duplicates("nearest")
    return {
        "name": name, "sample_rate": rate, "duration_s": met["samples"] / rate, "windows": windows, "cycles": cycles,
        "answer": max(p, key=p.get, default=None), "p": p, "nearest": near.set_index("nearest")["cosine"][:3].to_dict(),
        "remarks": [text for text, applies in remarks.items() if applies],
    }  # fmt: skip


def listen_all(found: list, network: Network, out: str = "", progress=lambda share, line: None) -> Iterator[dict]:
    """`listen` to each row of `find`; name and error of one that can't be read. ``out`` gets all of it as JSON."""
    with open(out or os.devnull, "w", encoding="utf-8") as file:
        print(f'{{"network": {json.dumps(network.about)}, "recordings": [', file=file)
        for done, (name, path, cycles) in enumerate(found, 1):
            try:
                one = listen(name, path, network, cycles)
            except AudioError as error:
                one = {"name": name, "error": str(error)}
            print(json.dumps(one, allow_nan=False), "," if done < len(found) else "]}", sep="", file=file)
            progress(done / len(found), name)
            yield one


def table(one: dict) -> pd.DataFrame:
    """The windows of a recording, a row each."""
    return pd.DataFrame(one["windows"], columns=COLUMNS)


def summary(one: dict) -> dict:
    """A recording's row in a table of many."""
    row = {"recording": one["name"], "answer": one["answer"] or "none: silent"} | one["p"]
    return row | {"AQS": table(one)["AQS"].mean(), "windows": len(one["windows"]), "remarks": len(one["remarks"])}


def write_page(out: Path, parameters: dict) -> None:
    """Write notebook 09, run on recordings, without its code: one page that needs nothing from elsewhere."""
    source, executed = paths.NOTEBOOKS / "09_listen_to_a_recording.ipynb", out.with_suffix(".ipynb")
    book = nbformat.read(notebooks.run_notebook(source, executed, parameters), 4)
    book.cells = [cell for cell in book.cells if "book" not in cell.metadata.get("tags", [])]
    for cell in book.cells:  # a decoder of MP3 talks to stderr
        cell["outputs"] = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
    body, _ = nbconvert.HTMLExporter(template_name="basic", exclude_input=True).from_notebook_node(book)
    page = Path(__file__).with_name("listen.html").read_text(encoding="utf-8").replace("BODY", body)
    paths.write_atomically(out, lambda part: part.write_text(page, encoding="utf-8"))
    executed.unlink()
