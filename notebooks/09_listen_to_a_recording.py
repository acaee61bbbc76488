# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,-kernelspec,-jupytext.text_representation
# ---

# %% [markdown] tags=["book"]
# # Listen to a recording
#
# You give a trained network a recording of your own, and see what it answers, and why you should
# be careful with the answer.
#
# - **What you will get:** a player; the waveform and the spectrogram; the audio quality of every
#   window of 8 s beside that of the training clips; the margin that each class would get; the
#   probabilities; the training clips that the network finds most alike; and warnings where the
#   recording is unlike all that the network was trained on.
# - **Reproduces:** nothing in the paper. It is the paper's method on one recording.
# - **Runtime:** seconds once the runs of notebook 05 are there.
#
# Previous: [Judge the claims](08_judge_claims.ipynb) · Back to the start:
# [Start here](00_start_here.ipynb) · [Glossary](../docs/glossary.md) ·
# the same from the command line: `qlung listen FILE --html PAGE`

# %% [markdown]
# ## What this is not good for
#
# - **This is not a medical device.** Nothing about a patient may be decided with it.
# - A network answers always, also to speech, to traffic, or to a heart. It knows four classes and
#   has no "something else".
# - It was trained on few patients and on few devices. Nobody knows how it does on others, such as
#   a telephone. The warnings below show only some of the differences.
# - A network that was trained on synthetic sound says nothing about a patient at all.

# %% [markdown] tags=["book"]
# ## Which recording
#
# `path` is a WAV, FLAC, OGG or MP3 file, or a folder of them, or a recording of a corpus, such as
# `icbhi:101_1b1_Al_sc_Meditron` (`data` is then the folder that holds `icbhi/`). Several are
# written on lines of their own. Without it, a test recording of the profile is taken. `network`
# is the folder of a trained network. Without it, a recording of yours is answered by the
# [committed network](../network/README.md), and the profile's test recording by the profile's run
# of QLung with seed 0.

# %% tags=["parameters"]
path: str = ""
network: str = ""
profile: str = "demo"
data: str = ""

# %% tags=["book"]
from pathlib import Path

import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import soundfile
import soxr
import torch
from IPython.display import Audio, Markdown, display

from qlung import audio, quality
from qlung.book import display as tables
from qlung.book import figures, listen
from qlung.corpora import CLASSES
from qlung.training import profiles

# %% [markdown]
# The network, and what it was trained on:

# %%
torch.manual_seed(0)
figures.use_style()
known = listen.load("" if path else profile, data, network)
Markdown(f"**{known.about}**")

# %% [markdown] tags=["book"]
# The recordings to listen to. A test recording is as new to the network as one of your own.

# %% tags=["book"]
names = path.split("\n")
if not path:
    corpus = profiles.load_profile(profile).train_on
    test = profiles.open_corpora(profile, data)[corpus].select("test")
    names = [f"{corpus}:{test.recordings['recording_id'].iloc[0]}"]
found = listen.find(names, data)

# %% [markdown]
# ## The answers
#
# A recording is cut into windows of 8 s, with a new one every 4 s (a shorter recording is one
# window). The network answers to each window. A recording's probabilities are the mean over its
# windows, and its answer is the class with the highest one. A table of many recordings is all that
# is kept of most of them: players and pictures follow for the first ten, because a page with a
# thousand of them would not open. `qlung listen FOLDER --json FILE` writes all windows of all.

# %%
PLAYERS = 10
rows, heard, bad = [], [], []
for one in listen.listen_all(found, known):
    if "error" in one:
        bad.append(one["error"])
    else:
        rows.append(listen.summary(one))
        heard = [*heard, one][:PLAYERS]

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
shown = pd.DataFrame(rows, columns=["recording", "answer", *CLASSES, "AQS", "windows", "remarks"])
display(tables.readable(shown, 2))
if bad:
    display(Markdown("\n".join(f"- not read: {text}" for text in bad)))

# %% [markdown] tags=["book"]
# **Checked:** the probabilities of the first recording are the mean over its windows, and the AQS
# of its first window is the one that the library computes from the whole recording.

# %% tags=["check", "book"]
first = next((one for one in heard if one["answer"]), None)
if first:
    windows = listen.table(first).dropna()
    assert np.allclose(windows[[f"P {name}" for name in CLASSES]].mean(), list(first["p"].values()))
if not path:
    samples = audio.fade(audio.read(found[0][1], quality.RATE)[0], quality.RATE)
    clip = torch.from_numpy(audio.fit_length(samples, quality.RATE, 8.0))
    h = quality.spectral_entropy(clip, quality.RATE, **quality.DEFAULT_DEFINITION)
    aqs = known.scorer.score(h, quality.rms_dbfs(clip))
    assert np.allclose(aqs, windows["AQS"].iloc[0], atol=1e-4)
f"{len(heard)} with a player; checked: {bool(first)}"

# %% [markdown]
# ## Players
#
# At most the first minute. Every player is as loud as it can be: the level of the recording is R
# in the tables below.


# %% jupyter={"source_hidden": true}
def start_of(file: Path) -> tuple[np.ndarray, int]:
    """At most a minute of a recording: mono samples and their rate, at most 16 kHz."""
    rate = soundfile.info(file).samplerate
    samples, _ = soundfile.read(file, 60 * rate, dtype="float32", always_2d=True)
    samples, new = np.nan_to_num(samples).mean(1), min(rate, quality.RATE)
    return (samples if rate == new else soxr.resample(samples, rate, new)), new


files = {name: file for name, file, _ in found}
sounds = {one["name"]: start_of(files[one["name"]]) for one in heard if one["answer"]}

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
for one in heard:
    where = f"**{one['name']}**, {one['duration_s']:.1f} s at {one['sample_rate']} Hz"
    display(Markdown(where))
    if one["name"] in sounds:
        samples, rate = sounds[one["name"]]
        display(Audio(samples, rate=rate))

# %% [markdown]
# ## How unlike the training recordings it is
#
# A network can't be trusted on sound that is unlike all it was trained on. Compared are the
# sample rate; H (spectral entropy), R (level) and AQS with their range over the training clips;
# and the embedding, by its cosine to the nearest training clip. That cosine is called far if 99 %
# of the training clips are nearer than that to a clip of another patient. No remark doesn't mean
# that all is well.

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
for one in heard:
    remarks = [f"- {text}" for text in one["remarks"]] or ["- no remark"]
    display(Markdown("\n".join([f"**{one['name']}**", "", *remarks])))

# %% [markdown]
# ## Waveform, spectrogram and probabilities
#
# Dashed lines are the beginnings and ends of windows. Coloured spans are the cycles that the
# corpus' annotators marked, if there are any: their colour is their class. Below, each line is one
# window and its height the probability of a class.


# %% jupyter={"source_hidden": true}
def draw_sound(top, middle, one: dict, samples: np.ndarray, rate: int) -> None:
    """Waveform with windows and cycles, and the spectrogram below it."""
    librosa.display.waveshow(samples, sr=rate, ax=top, color="black", axis="s", lw=0.5)
    edges = {row[edge] for row in one["windows"] for edge in ("start_s", "end_s")}
    for time in (time for time in edges if 0 < time < len(samples) / rate):
        top.axvline(time, ls="--", color=figures.GREY, lw=0.7)
    for cycle in one["cycles"]:
        colour = figures.CLASS_COLOURS[CLASSES[cycle["label"]]]
        top.axvspan(cycle["start_s"], cycle["end_s"], fc=(colour, 0.3), ec="white", lw=1)
    frame = 2 ** round(np.log2(0.064 * rate))
    power = np.abs(librosa.stft(samples, n_fft=frame, hop_length=frame // 4))
    level = librosa.amplitude_to_db(power, ref=np.max)
    axes = {"sr": rate, "hop_length": frame // 4, "x_axis": "s", "y_axis": "linear"}
    librosa.display.specshow(level, **axes, ax=middle, vmin=-80)
    top.set(xlabel="", ylabel="amplitude")
    middle.set(xlabel="", ylabel="frequency [Hz]", ylim=(0, min(rate / 2, 4000)))


# %% jupyter={"source_hidden": true}
def draw_answers(ax, one: dict) -> None:
    """A line per window and class, at its probability."""
    rows = listen.table(one).dropna()
    for name in CLASSES:
        style = {"color": figures.CLASS_COLOURS[name], "lw": 2.5, "alpha": 0.8, "label": name}
        ax.hlines(rows[f"P {name}"], rows["start_s"], rows["end_s"], **style)
    ax.set(ylabel="probability", ylim=(-0.02, 1.02))
    ax.legend(loc="upper left", ncols=4, bbox_to_anchor=(0, -0.3))


# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
for one in (one for one in heard if one["name"] in sounds):
    samples, rate = sounds[one["name"]]
    fig, axes = plt.subplots(3, figsize=(10, 6), sharex=True, height_ratios=[1, 1.4, 1])
    draw_sound(*axes[:2], one, samples, rate)
    draw_answers(axes[2], one)
    axes[0].set_title("Waveform, windows and annotated cycles")
    axes[1].set_title("Spectrogram, brighter is louder")
    axes[2].set_title("Probability of each class in each window")
    axes[2].set(xlabel="time [s]", xlim=(0, len(samples) / rate))
    fig.suptitle(one["name"])
    text = f"Waveform, spectrogram and probabilities of {one['name']}; answer: {one['answer']}"
    display(fig, metadata={"image/png": {"alt": text}})
    plt.close(fig)
    if not path:
        figures.save(fig, "09-recording", profile, listen.table(one).drop(columns="nearest"))

# %% [markdown]
# ## Quality of every window, beside the training clips
#
# Grey: the training clips. Coloured: the windows of each recording. A quality far from all grey
# bars is one that the network never met.

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
for one in (one for one in heard if one["answer"]):
    fig, axes = plt.subplots(1, 3, figsize=(10, 2.8), sharey=True)
    for ax, name in zip(axes, ("H", "R", "AQS"), strict=True):
        sns.histplot(known.clips[name], bins=30, color=figures.GREY, alpha=0.5, lw=0, ax=ax)
        for value in listen.table(one)[name].dropna():
            ax.axvline(value, color="#D55E00", lw=1, alpha=0.6)
    axes[0].set(xlabel="spectral entropy H", ylabel="training clips")
    axes[1].set_xlabel("level R [dBFS]")
    axes[2].set_xlabel("audio-quality score (AQS)")
    text = f"Windows of {one['name']} (lines) and training clips (bars)"
    fig.suptitle(text)
    display(fig, metadata={"image/png": {"alt": text}})
    plt.close(fig)

# %% [markdown]
# The same as numbers, for at most twenty windows of each. A rank is the share of training clips
# with a lower value: near 0 or 1 is unusual.

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
columns = ["start_s", "end_s", "H", "H rank", "R", "R rank", "AQS", "AQS rank"]
for one in heard:
    rows = tables.readable(listen.table(one)[columns][:20], 2)
    display(Markdown(f"**{one['name']}**"), rows)

# %% [markdown]
# ## The margin that each class would get
#
# In training, QLung would ask for this angle [rad] between a clip and the other classes. It grows
# with the AQS and with the rarity of the class. To answer, the network needs no margin and no AQS.
# A silent window has no AQS; in training it would get the mean.

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
kinds = [f"{kind} {name}" for kind in ("margin", "P") for name in CLASSES]
columns = ["start_s", "end_s", "AQS", *kinds]
for one in heard:
    rows = tables.readable(listen.table(one)[columns][:20], 2)
    display(Markdown(f"**{one['name']}**"), rows)

# %% [markdown]
# ## The most similar training clips
#
# By the cosine between embeddings, over all windows. If their classes disagree, the network is on
# a border. If the cosine is low, nothing in the training data is like this recording.

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
clips = known.clips.set_index("event_id")
for one in heard:
    near = clips.loc[list(one["nearest"]), ["label", "H", "R", "AQS"]].reset_index()
    near["label"] = [CLASSES[label] for label in near["label"]]
    near["cosine"] = list(one["nearest"].values())
    display(Markdown(f"**{one['name']}**"), tables.readable(near, 2))

# %% [markdown] tags=["book"]
# ## What we found
#
# - An answer alone is worth little. What it rests on can be looked at: the windows, their quality,
#   the nearest training clips, and the differences to the training recordings.
# - The recording's AQS changes nothing in the answer. It only says how large the margin would have
#   been in training.
# - On a real recording, the network of the demo is far from home in nearly everything, and yet its
#   probabilities look as sure as ever. A probability isn't a measure of trust.
#
# ## Try next
#
# - Record yourself through a telephone, and compare the remarks with those of a test recording.
# - Play the recording louder or softer (`degrade.degraded`, notebook 02). Which columns move?
# - The same page from the command line: `qlung listen FILE --html page.html`.
#
# Previous: [Judge the claims](08_judge_claims.ipynb) · Back to the start:
# [Start here](00_start_here.ipynb) · [Glossary](../docs/glossary.md)
