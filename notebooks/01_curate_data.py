# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,-kernelspec,-jupytext.text_representation
# ---

# %% [markdown]
# # Curate the data
#
# Two public corpora of respiratory sounds, read into one table schema.
#
# **What you will get:** both corpora in one schema, counted by class, device, patient and split;
# what was set aside and why; other splits beside the official one; a page of sounds to look at and
# listen to; a data card of each corpus.
#
# **Reproduces:** the paper's section on data sets.
#
# **Runtime:** under a minute on synthetic recordings (profile `demo`), about a minute on real ones
# (profile `sc`).
#
# [Previous: Start here](00_start_here.ipynb) · [Next: Measure quality](02_measure_quality.ipynb) ·
# [Glossary](../docs/glossary.md) · [All results](../RESULTS.md)
#
# ICBHI, the data of a challenge at the 2017 International Conference on Biomedical and Health
# Informatics, marks breathing **cycles** in a text file beside each recording. SPRSound,
# recordings of children from Shanghai, marks **events** in JSON files. Both become one table of
# events with a label: normal, crackle, wheeze or both.
#
# On the demo profile the recordings are synthetic, and every table names them `synthetic-icbhi`
# and `synthetic-sprsound`. They lie in the owners' exact layouts, so the same code reads them.

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""

# %% jupyter={"source_hidden": true}
import dataclasses
import tempfile
from pathlib import Path

import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Audio, Markdown, display
from scipy import ndimage, signal

# %% jupyter={"source_hidden": true}
from qlung import audio, load_corpus
from qlung.book import figures, results
from qlung.corpora import CLASSES, find, splits, synthetic
from qlung.training import profiles

torch.manual_seed(0)
figures.use_style()

# %% [markdown]
# ## One schema for every corpus
#
# A corpus is two tables, `recordings` and `events`. Here the events of all corpora are put
# together, each with its recording's patient and device.

# %%
corpora = profiles.open_corpora(profile, data)
recordings = pd.concat([corpus.recordings.assign(corpus=name) for name, corpus in corpora.items()])
events = pd.concat([corpus.events.assign(corpus=name) for name, corpus in corpora.items()])
columns = ["corpus", "recording_id", "patient_id", "device"]
events = events.merge(recordings[columns], on=columns[:2], validate="many_to_one")
events["class"] = np.array(CLASSES)[events["label"]]
events["seconds"] = events["end_s"] - events["start_s"]
columns = ["corpus", "event_id", "patient_id", "device", "split", "class", "seconds"]
events.groupby("corpus").head(2)[columns].round(2)

# %% [markdown]
# ## Completeness: counts against what is expected
#
# Is everything here? Each corpus is registered with the counts that its owners publish (the
# synthetic ones with what this package makes). `train` and `test` are the number of events:
# normal, crackle, wheeze, both. On a part of ICBHI the two columns differ, and so does every score
# that could be compared.


# %%
def size(corpus) -> dict:
    """Recordings, patients and events per class of a corpus."""
    counts = {split: list(corpus.select(split).counts()) for split in ("train", "test")}
    patients = corpus.recordings["patient_id"].nunique()
    return {"recordings": len(corpus.recordings), "patients": patients, **counts}


rows = []
for name, corpus in corpora.items():
    expected = find(name).entry.get("expect", {})
    rows += [(name, what, expected.get(what, "–"), value) for what, value in size(corpus).items()]
pd.DataFrame(rows, columns=["corpus", "number of", "expected", "here"])

# %% [markdown]
# ## Classes, devices, patients and splits
#
# In ICBHI every patient was recorded with few devices, and the official split is by patient. So
# device and split are **confounded**: a model that recognises the device is tested on other
# devices than it was trained on.

# %%
by = ["corpus", "device", "split"]
groups = recordings.groupby(by)
sizes = groups.agg(patients=("patient_id", "nunique"), recordings=("recording_id", "size"))
sizes["minutes"] = (groups["duration_s"].sum() / 60).round(1)
per_class = pd.crosstab([events[name] for name in by], events["class"]).reindex(columns=CLASSES)
counted = sizes.join(per_class.assign(events=per_class.sum(axis=1))).fillna(0)
counted = counted.astype(dict.fromkeys([*CLASSES, "events"], int)).reset_index()
counted

# %% jupyter={"source_hidden": true}
STACK = {"hue": "class", "hue_order": CLASSES[::-1], "palette": figures.CLASS_COLOURS}
STACK |= {"multiple": "fill", "shrink": 0.8, "alpha": 1, "linewidth": 0}
LEGEND = {"loc": "lower left", "ncols": 4, "title": "", "reverse": True, "columnspacing": 1}
events["group"] = [", ".join(key) for key in zip(*(events[name] for name in by), strict=True)]
events["group"] += "\nn = " + events.groupby("group")["group"].transform("size").astype(str)
first = events[events["corpus"] == next(iter(corpora))]

# %% jupyter={"source_hidden": true}
height = 1 + 0.42 * len(counted)
fig, (left, right) = plt.subplots(1, 2, figsize=(10, height), width_ratios=[1.3, 1])
ordered = events.sort_values(by, ascending=[True, True, False])
sns.histplot(ordered, y="group", **STACK, ax=left)
left.set(xlabel="share of events", ylabel="")
sns.move_legend(left, bbox_to_anchor=(0, 1), **LEGEND)
devices = {"y": "device", "hue": "split", "hue_order": ["train", "test"]}
sns.countplot(first, **devices, palette=[figures.GREY, "#E69F00"], ax=right)
right.set(xlabel="events", ylabel="", title=f"{next(iter(corpora))}: devices in each split")
figures.save(fig, "01-classes-devices", profile, counted)

# %% [markdown]
# ### How well does the device predict the split?
#
# Guess the split of an event from its device alone, and compare with always guessing the larger
# split.

# %%
rows = []
for name, part in events.groupby("corpus"):
    count = pd.crosstab(part["device"], part["split"], normalize="all")
    rows.append((name, f"{count.max(axis=1).sum():.0%}", f"{count.sum().max():.0%}"))
columns = ["corpus", "correct, from the device", "correct, always the larger split"]
pd.DataFrame(rows, columns=columns)

# %% [markdown]
# ### Contested devices
#
# ICBHI's release holds a list, `filename_differences.txt`, which names another device for some
# recordings than their file names do: for 91 of the 127 single-channel ones that are called
# Meditron. Nobody settles which is right. A widespread copy of the data says that the list can be
# ignored; elsewhere an erratum redid all tables by device because of it. The sample rate of the
# files sides with the list: on real recordings all 91 are at 44.1 kHz, and the other 36 at 4 or 10
# kHz. So the sample rate is one more label of the device. Here `device` is the name in the file
# name and `listed_device` that of the list; both can be had wherever a device matters.

# %%
contested = recordings[recordings["device"] != recordings["listed_device"]]
print(f"{len(contested)} recordings with two devices")
by = ["corpus", "device", "listed_device", "sample_rate", "split"]
recordings.groupby(by).size().rename("recordings").reset_index()

# %% [markdown]
# ### How unevenly do patients contribute?
#
# A class margin counts events, but events of one patient resemble each other. The table shows the
# share of a class's training events that comes from the patient with most of them [%].

# %%
train = events[events["split"] == "train"]
per_patient = train.groupby(["corpus", "class", "patient_id"]).size()
per_class = per_patient.groupby(["corpus", "class"])
largest = (100 * per_class.max() / per_class.sum()).round().astype(int).reset_index(name="share")
largest.pivot_table("share", "corpus", "class")[list(CLASSES)].astype(int)

# %% [markdown]
# ## Patient-disjoint splits
#
# A patient in training and test lets a model recognise the patient instead of the disease. In
# ICBHI's full official split these are patients 156 and 218. Here they are computed, not assumed.

# %%
lines = []
for name, corpus in corpora.items():
    shared = splits.shared_patients(corpus)
    each = [f"{p.patient_id} ({p.train} and {p.test} events)" for p in shared.itertuples()]
    lines.append(f"{name}: patients in training and test: {', '.join(each) or 'none'}")
print("\n".join(lines))

# %% [markdown]
# `disjoint` moves such patients to one split. "Moved to test" keeps every official test
# event in the test set; "moved to train" keeps the training set whole. Compare them with a
# careless split, which assigns recordings at random, and with the first of five folds that keep
# patients together.


# %%
def at_random(corpus):
    """Each recording to test with a probability of 40 %, whoever the patient is."""
    side = np.random.default_rng(0).choice(["train", "test"], len(corpus.recordings), p=[0.6, 0.4])
    return splits.with_split(corpus, pd.Series(side))


def disjoint(corpus, to):
    """The official split, but all recordings of patients of both sides on one."""
    both = splits.shared_patients(corpus)["patient_id"]
    moved = corpus.recordings["patient_id"].isin(both)
    return splits.with_split(corpus, corpus.recordings["split"].mask(moved, to))


rules = {
    "official": lambda corpus: corpus,
    "disjoint, moved to test": lambda corpus: disjoint(corpus, "test"),
    "disjoint, moved to train": lambda corpus: disjoint(corpus, "train"),
    "first of five folds by patient": lambda corpus: splits.grouped_folds(corpus)[0],
    "recordings at random": at_random,
}  # fmt: skip

# %%
rows, tested = [], []
for name, corpus in corpora.items():
    for rule, divide in rules.items():
        divided = divide(corpus)
        both, test = splits.shared_patients(divided), divided.select("test").events
        rows.append((name, rule, len(both), both["test"].sum(), len(test)))
        tested.append(test.assign(corpus=name, rule=rule))
tested = pd.concat(tested)
tested["class"] = np.array(CLASSES)[tested["label"]]

# %%
columns = ["corpus", "rule", "patients in both", "their test events", "test events"]
per_class = pd.crosstab([tested["corpus"], tested["rule"]], tested["class"]).reindex(
    columns=CLASSES
)
divisions = pd.DataFrame(rows, columns=columns).merge(per_class.reset_index())
divisions

# %% jupyter={"source_hidden": true}
fig, axes = plt.subplots(1, len(corpora), figsize=(10, 2.8), sharey=True)
for ax, (name, part) in zip(axes, tested.groupby("corpus", sort=False), strict=True):
    sns.histplot(part, y="rule", **STACK, ax=ax, legend=ax is axes[0])
    ax.set(title=f"{name}: classes of the test set", xlabel="share of test events", ylabel="")
sns.move_legend(axes[0], bbox_to_anchor=(0, 1.1), **LEGEND)
figures.save(fig, "01-splits", profile, divisions)

# %% [markdown]
# To choose an epoch or a setting, a fifth of the training patients is held out as a validation set.
# The test set stays untouched.
#
# **Checked:** no patient is on both sides of a fold, and five folds test every training event
# exactly once. The table shows how many events each fold holds out.

# %% tags=["check"]
held, trainable = {}, {name: c for name, c in corpora.items() if len(c.select("train").events)}
for name, corpus in trainable.items():
    folds = splits.grouped_folds(corpus.select("train"))
    assert not any(len(splits.shared_patients(fold)) for fold in folds)
    tested = [fold.select("test").events["event_id"] for fold in folds]
    assert sorted(pd.concat(tested)) == sorted(corpus.select("train").events["event_id"])
    held[name] = [len(events) for events in tested]
pd.DataFrame(held, index=[f"fold {k}" for k in range(1, 6)])

# %% [markdown]
# ## Event durations and repeat-padding
#
# The model's input is 8 s long. A shorter event is repeated until it fills them, so most of an
# input is a copy. If classes differ in length, the number of copies reveals the class. On real
# recordings they do, and in opposite ways: ICBHI's abnormal cycles are longer than its normal ones,
# SPRSound's abnormal events are shorter (notebook 07 measures what that is worth).

# %%
events["copied"] = 100 * (1 - events["seconds"] / 8).clip(lower=0)
groups = events.groupby(["corpus", "class"])
copies = groups["seconds"].agg(["count", "min", "median", "max"]).round(2).add_suffix(" [s]")
copies = copies.rename(columns={"count [s]": "events"})
copies["longer than 8 s"] = groups["seconds"].agg(lambda seconds: (seconds > 8).sum())
copies["copied share, mean [%]"] = groups["copied"].mean().round()
copies = copies.reindex(CLASSES, level="class")
copies

# %% [markdown]
# For the picture, take a synthetic event of about median length, as the model gets it. A synthetic
# sound may be shown anywhere: it is nobody's breath.

# %%
ours = load_corpus("synthetic-icbhi")
near_median = ours.events.eval("end_s - start_s").sub(events["seconds"].median()).abs().idxmin()
chosen = dataclasses.replace(ours, events=ours.events.loc[[near_median]])
padded = next(audio.cut_clips(chosen, 4000))[1]
length = len(next(audio.cut_clips(chosen, 4000, None))[1])
grid = [["clip"] * len(corpora), [*corpora]]  # of the figure: the clip above, one corpus per panel

# %% jupyter={"source_hidden": true}
boxes = {"y": "class", "order": CLASSES, "hue": "class", "palette": figures.CLASS_COLOURS}
fig, axes = plt.subplot_mosaic(grid, figsize=(10, 4.4), height_ratios=[1, 1.7])
wave = {"sr": 4000, "ax": axes["clip"], "axis": "s"}
librosa.display.waveshow(padded[:length], **wave, color="black", label="the event")
wave |= {"color": "#BBBBBB", "offset": length / 4000, "label": "copies"}
librosa.display.waveshow(padded[length:], **wave)
axes["clip"].set(xlabel="time [s]", xlim=(0, 8), xticks=range(9), yticks=[])
axes["clip"].set_title("A synthetic event, padded to 8 s")
axes["clip"].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
for name, part in events.groupby("corpus"):
    sns.boxplot(part, x="copied", **boxes, fliersize=2, ax=axes[name])
    axes[name].set_yticks(range(4), [f"{c} (n={(part['class'] == c).sum()})" for c in CLASSES])
    axes[name].set(title=name, xlabel="copied share of the 8 s input [%]", ylabel="", xlim=(0, 100))
figures.save(fig, "01-durations", profile, copies.reset_index())

# %% [markdown]
# ## Sample rates and bandwidth
#
# A sample rate limits a recording's bandwidth. Resampling to 16 kHz doesn't bring back what the
# device cut off. **Bandwidth** here is the frequency below which 99 % of the power lies. Up to 40
# recordings of each device and rate are read.

# %%
FREQUENCIES = np.arange(25, 4000, 25.0)


def bandwidth(samples: np.ndarray, rate: int) -> float:
    """Frequency [Hz] below which 99 % of the power lies; NaN for silence."""
    frequency, power = signal.welch(samples, rate, nperseg=min(len(samples), 2048))
    total = power.cumsum()
    return frequency[np.searchsorted(total, 0.99 * total[-1])] if total[-1] > 0 else np.nan


def spectrum(samples: np.ndarray, rate: int) -> np.ndarray:
    """Level at ``FREQUENCIES`` [dB re highest], NaN above half the sample rate."""
    frequency, power = signal.welch(samples, rate, nperseg=max(256, rate // 25))
    level = 10 * np.log10(np.interp(FREQUENCIES, frequency, power, right=np.nan) + 1e-20)
    return level - np.nanmax(level)


# %%
rows, curves = [], []
for (name, device, rate), part in recordings.groupby(["corpus", "device", "sample_rate"]):
    some = part.sort_values("recording_id").iloc[:: -(-len(part) // 40)]
    kind = f"{name}, {device}, {rate / 1000:g} kHz (n={len(some)})"
    for samples in (audio.read(path)[0] for path in some["path"]):
        rows.append((kind, rate / 2, bandwidth(samples, rate)))
        curves.append(spectrum(samples, rate))
bands = pd.DataFrame(rows, columns=["kind", "nyquist_hz", "bandwidth_hz"])
kinds = bands.groupby("kind", sort=False).median()
spectra = pd.DataFrame(curves, columns=FREQUENCIES).groupby(bands["kind"]).median().T
kinds.round(-1).astype(int)

# %% [markdown]
# Lung sounds have little power above some hundred hertz. The median spectrum at the right shows
# where a device stops.

# %% jupyter={"source_hidden": true}
height = 1.2 + 0.42 * len(kinds)
fig, (left, right) = plt.subplots(1, 2, figsize=(10, height), width_ratios=[1, 1.1])
colours = dict(zip(kinds.index, sns.color_palette(n_colors=len(kinds)), strict=True))
dots = {"hue": "kind", "palette": colours, "legend": False, "size": 3, "alpha": 0.5}
sns.stripplot(bands, x="bandwidth_hz", y="kind", **dots, jitter=False, ax=left)
left.plot(kinds["nyquist_hz"], range(len(kinds)), "|", ms=16, mew=2, color="black")
left.set(xscale="log", xlabel="99 % bandwidth [Hz]; bar: half the sample rate", ylabel="")
left.set_xticks([100, 300, 1000, 3000, 10000], ["100", "300", "1k", "3k", "10k"])
left.minorticks_off()
for tick in left.get_yticklabels():
    tick.set_color(colours[tick.get_text()])
sns.lineplot(spectra, palette=colours, dashes=False, legend=False, ax=right)
right.set(xlabel="frequency [Hz]", ylabel="median level [dB re highest]", ylim=(-100, 3))
figures.save(fig, "01-bandwidth", profile, bands)

# %% [markdown]
# ## Labels: from the annotators' to four classes
#
# The table shows what the annotators wrote and the class it becomes. ICBHI doesn't distinguish
# fine from coarse crackles, nor wheezes from rhonchi. SPRSound does, and four classes lose that
# distinction.

# %%
by = [events["corpus"], events["raw_label"], events["class"]]
mapped = pd.crosstab(by, events["split"])
mapped[sorted(mapped, key=lambda split: (split != "train", split))]

# %% [markdown]
# ### Irregular events
#
# Very short events, and events that begin before the one before them ends.


# %%
def irregular_events(part: pd.DataFrame) -> pd.Series:
    part = part.sort_values(["recording_id", "start_s"])
    short = part["seconds"] < 0.5
    before = part.groupby("recording_id")["end_s"].shift()
    classes = part.groupby("recording_id")["label"].nunique()
    return pd.Series({
        "events shorter than 0.5 s": f"{short.sum()} ({short.mean():.1%})",
        "events that overlap the one before": str((part["start_s"] < before - 0.002).sum()),
        "recordings with one class only": f"{(classes == 1).mean():.0%}",
    })  # fmt: skip


pd.DataFrame({name: irregular_events(part) for name, part in events.groupby("corpus")})

# %% [markdown]
# ### Irregular recordings
#
# Recordings without an event, patients recorded with several devices, and recordings whose audio
# equals another's.


# %%
def irregular_recordings(corpus) -> pd.Series:
    table, inside = corpus.recordings, corpus.events.eval("end_s - start_s").sum()
    devices = table.drop_duplicates(["patient_id", "device"]).groupby("patient_id").size()
    unlabelled = table[~table["recording_id"].isin(corpus.events["recording_id"])]
    return pd.Series({
        "recorded time inside an event": f"{inside / table['duration_s'].sum():.0%}",
        "recordings without any event": str(len(unlabelled)),
        "of these labelled Poor Quality": str(unlabelled["quality_label"].eq("poor").sum()),
        "patients recorded with several devices": str((devices > 1).sum()),
        "recordings with another's audio": str(len(corpus.duplicates())),
    })  # fmt: skip


pd.DataFrame({name: irregular_recordings(corpus) for name, corpus in corpora.items()})

# %% [markdown]
# ## What was set aside
#
# Nothing is dropped without a line in `corpus.report`. `left out` is a whole recording, `event
# left out` one event, and `absent` a recording that the split names and that isn't here.
# Everything else was kept or repaired, as the line describes.

# %%
reports = pd.concat([corpus.report.assign(corpus=name) for name, corpus in corpora.items()])
reports["what"] = reports["what"].str.replace(r"[\d.]*\d", "#", regex=True)
summary = reports.groupby(["corpus", "done", "what"]).size().rename("lines").reset_index()
nothing = "Nothing to report: every recording is there and whole."
Markdown(nothing if summary.empty else results.markdown(summary))

# %% [markdown]
# ### Does the report notice damaged files?
#
# A report without lines proves little. So damage a small synthetic corpus as interrupted downloads
# and edits by hand would, and read it again.

# %%
folder = tempfile.TemporaryDirectory()
root = synthetic.write(Path(folder.name) / "damaged", patients=9, events=2)
wavs = sorted(root.rglob("icbhi/*/*.wav"))
wavs[0].write_bytes(wavs[0].read_bytes()[:-1000])  # the end is missing
wavs[1].write_bytes(wavs[2].read_bytes())  # another recording's audio
wavs[3].with_suffix(".txt").write_text("0,200 2,800 0 1\n", encoding="utf-8")  # decimal commas
wavs[4].with_suffix(".txt").write_text("0.200 999.000 0 1\n", encoding="utf-8")  # too long
wavs[5].with_suffix(".txt").unlink()
wavs[6].unlink()
silence = wavs[7].read_bytes()[:44] + bytes(wavs[7].stat().st_size - 44)
_ = wavs[7].write_bytes(silence)

# %% [markdown]
# **Checked:** every damaged recording is reported or found as a duplicate, and an undamaged one
# isn't.

# %% tags=["check"]
damaged = load_corpus("icbhi", root)
folder.cleanup()
assert set(damaged.report["recording_id"]) >= {wavs[i].stem for i in (0, 3, 4, 5, 6, 7)}
assert set(damaged.duplicates().iloc[0, [0, 2]]) == {wavs[1].stem, wavs[2].stem}
assert not damaged.report["recording_id"].isin([wavs[8].stem]).any()
Markdown(results.markdown(damaged.report))

# %% [markdown]
# ## Sounds to recognise
#
# Six sounds as a chest physician names them:
#
# - **Normal** breath is noise that swells and fades.
# - **Crackles** are short bursts over many frequencies, thin vertical lines in a spectrogram.
#   **Fine** ones are short, high and late in inspiration, **coarse** ones longer and lower.
# - **Wheezes** are long level lines, often with a harmonic above. **Rhonchi** are the same below
#   200 Hz, with many harmonics close together.
# - **Stridor** is high and occurs in inspiration.
#
# The truth of synthetic clips is known: the signal-to-noise ratio (SNR) of the sound, and how the
# clip was degraded.
#
# **Checked:** the loader reads the labels and times that were written.

# %% tags=["check"]
truth, lines = synthetic.truth(), []
made = {name: load_corpus(name) for name in ("synthetic-icbhi", "synthetic-sprsound")}
for name, corpus in made.items():
    both = corpus.events.merge(truth, on="event_id", suffixes=("", "_true"))
    assert len(both) == len(corpus.events)
    assert (both["label"] == both["label_true"]).all()
    assert (both["start_s"] - both["start_s_true"]).abs().max() < 0.0011
    degraded = (both["degradation"] != "none").mean()
    lines.append((name, len(both), both["snr_db"].min(), both["snr_db"].max(), f"{degraded:.0%}"))
columns = ["corpus", "events", "lowest SNR [dB]", "highest SNR [dB]", "degraded"]
pd.DataFrame(lines, columns=columns).round(0)

# %% [markdown]
# ### Three features that distinguish the sounds
#
# - **bursts** [per s]: moments that are three times louder than the 150 ms around them;
# - **dynamics** [dB]: level difference between the loud and the soft parts of the breath;
# - **tonality** [dB]: how far a frequency above 150 Hz rises above its neighbours.
#
# Bursts and dynamics are measured between 300 and 1,500 Hz, where the heart is faint. A fast heart
# can still look like a regular row of crackles.

# %%
RATE = 4000
BAND = signal.butter(4, [150, 1500], "bandpass", fs=RATE, output="sos")
ABOVE_HEART = signal.butter(4, [300, 1500], "bandpass", fs=RATE, output="sos")

# %% [markdown]
# Each feature is computed on a clip at 4 kHz.


# %%
def sound_features(clip: np.ndarray) -> dict:
    """Bursts [1/s], tonality [dB] and dynamics [dB] of a clip at 4 kHz."""
    loud = np.abs(signal.sosfiltfilt(ABOVE_HEART, clip))
    short, slow = (ndimage.uniform_filter1d(loud, int(RATE * seconds)) for seconds in (0.005, 0.1))
    around = ndimage.median_filter(short, int(0.15 * RATE) + 1) + 1e-4 * short.max()
    peaks, _ = signal.find_peaks(short / around, height=3, distance=int(0.015 * RATE))
    level = 10 * np.log10(signal.welch(clip, RATE, nperseg=512)[1][19:192] + 1e-20)
    tonality = (level - ndimage.median_filter(level, 31)).max()
    soft, high = np.percentile(slow, [15, 85]) + 1e-9
    bursts, dynamics = len(peaks) * RATE / len(clip), 20 * np.log10(high / soft)
    return {"bursts": bursts, "tonality": tonality, "dynamics": dynamics}


# %% [markdown]
# Up to 60 events of each kind are drawn at random and measured.


# %%
def measure(corpus, sounds: pd.Series) -> pd.DataFrame:
    """Clips of 0.8 to 4 s and their features; ``sounds`` names the sound of each event_id."""
    named = corpus.events.assign(sound=corpus.events["event_id"].map(sounds))
    named = named.query("0.8 < end_s - start_s < 4").sample(frac=1, random_state=0)
    named = named.groupby("sound").head(60).sort_index()
    clips = audio.cut_clips(dataclasses.replace(corpus, events=named), RATE, None)
    rows = [{"event_id": event_id, "clip": clip} | sound_features(clip) for event_id, clip in clips]
    return pd.DataFrame(rows).merge(named[["event_id", "recording_id", "sound"]])


# %%
sounds = truth.set_index("event_id")["sound"]
measured = {name: measure(corpus, sounds) for name, corpus in made.items()}
if profiles.load_profile(profile).recorded:
    labelled = {name: corpus for name, corpus in corpora.items() if corpus.unit == "event"}
    for name, corpus in labelled.items():
        measured[name] = measure(corpus, corpus.events.set_index("event_id")["raw_label"])
by_sound = pd.concat([table.assign(corpus=name) for name, table in measured.items()])
by_sound = by_sound.groupby(["corpus", "sound"])
medians = by_sound[["bursts", "tonality", "dynamics"]].median().assign(clips=by_sound.size())
medians.round({"bursts": 1, "tonality": 0, "dynamics": 0})

# %% [markdown]
# ### Choosing the clips
#
# The page shows the clearest clip of each kind, not an average one. Of synthetic clips that is the
# clip without degradation and with the highest true SNR.

# %%
PAGE = ["Normal", "Fine Crackle", "Coarse Crackle", "Wheeze", "Rhonchi", "Stridor"]


def by_truth(table: pd.DataFrame, sound: str, noisy: bool = False) -> pd.Series:
    """The clean synthetic clip with the highest true SNR, or the clip with the lowest."""
    found = table[table["sound"] == sound].merge(truth[["event_id", "snr_db", "degradation"]])
    found = found if noisy else found[found["degradation"] == "none"]
    return found.loc[found["snr_db"].idxmin() if noisy else found["snr_db"].idxmax()]


# %% [markdown]
# Of real clips the features decide, without the quarter that has the largest dynamics (speech,
# knocks, gaps): the crackle with most bursts, the tonal sound with the highest tonality, the
# normal breath with fewest bursts.


# %%
def by_features(table: pd.DataFrame, sound: str, rank: int = 0) -> pd.Series | None:
    """The real clip with the clearest sound, or a later rank; None if there are too few."""
    found = table[table["sound"] == sound]
    found = found[found["dynamics"] <= found["dynamics"].quantile(0.75)]
    normal = sound.lower() == "normal"
    feature = "bursts" if normal or "rackle" in sound else "tonality"
    found = found.sort_values([feature, "dynamics"], ascending=[normal, False])
    found = found.drop_duplicates("recording_id")
    return found.iloc[rank] if rank < len(found) else None


# %% [markdown]
# ICBHI's labels are only crackle, wheeze or both, so its row shows two of each where the others
# show finer kinds. Each panel carries its annotator's label. On the demo profile the noisiest
# synthetic clips stand where the real ones would.

# %%
IN_ICBHI = ["normal", "crackle", "crackle", "wheeze", "wheeze", "crackle+wheeze"]
page = {name: [by_truth(measured[name], sound) for sound in PAGE] for name in made}
for name in [name for name in measured if name not in made]:
    labels = PAGE if set(PAGE) <= set(measured[name]["sound"]) else IN_ICBHI
    ranks = [labels[:k].count(label) for k, label in enumerate(labels)]
    chosen = zip(labels, ranks, strict=True)
    page[name] = [by_features(measured[name], label, rank) for label, rank in chosen]
if len(page) == len(made):
    noisiest = [by_truth(measured["synthetic-icbhi"], sound, noisy=True) for sound in PAGE]
    page["synthetic-icbhi, noisiest"] = noisiest

# %% [markdown]
# ### Spectrograms
#
# Windows of 40 ms every 4 ms. The title is the label; for a synthetic clip it adds the true SNR.


# %% jupyter={"source_hidden": true}
def caption(clip: pd.Series) -> str:
    """The label, and for a synthetic clip its true SNR and degradation."""
    if "snr_db" not in clip:
        return clip["sound"]
    degraded = "" if clip["degradation"] == "none" else f", {clip['degradation']}"
    return f"{clip['sound']}\nSNR {clip['snr_db']:.0f} dB{degraded}"


# %% jupyter={"source_hidden": true}
def spectrogram(ax: plt.Axes, clip: np.ndarray):
    """Draw a spectrogram up to 1.6 kHz, in dB below the highest level above 100 Hz."""
    frames = {"n_fft": 512, "win_length": 160, "hop_length": 16}
    power = np.abs(librosa.stft(clip, center=False, **frames)) ** 2
    level = 10 * np.log10(power + 1e-20)
    shown = level[(100 * 512 // RATE) + 1 : 1600 * 512 // RATE]
    axes = {"sr": RATE, "x_axis": "s", "y_axis": "hz", "ax": ax, "rasterized": True}
    colours = {"cmap": plt.get_cmap("magma", 16), "vmin": -48, "vmax": 0}  # 3 dB per colour
    image = librosa.display.specshow(level - shown.max(), **frames, **axes, **colours)
    ax.set(ylim=(0, 1600), xlabel="", ylabel="", xticks=np.arange(0, len(clip) / RATE, 0.5))
    return image


# %% jupyter={"source_hidden": true}
fig, axes = plt.subplots(len(page), 6, figsize=(11, 1.95 * len(page)), sharey=True)
drawn = []
for line, (row, clips) in zip(axes, page.items(), strict=True):
    for ax, clip in zip(line, clips, strict=True):
        if clip is not None:
            image = spectrogram(ax, clip["clip"])
            ax.set_title(caption(clip), fontsize=9)
            drawn.append(clip.drop(["clip", "event_id", "recording_id"]).to_dict() | {"row": row})
    line[0].set_ylabel(row.replace(", ", "\n") + "\nfrequency [Hz]")
for ax in axes[-1]:
    ax.set_xlabel("time [s]")
fig.colorbar(image, ax=axes, label="level [dB re highest above 100 Hz]", shrink=0.4, pad=0.01)
figures.save(fig, "01-spectrograms", profile, pd.DataFrame(drawn))

# %% [markdown]
# ### Time-expanded waveforms
#
# Next look at 120 ms around the loudest moment between 150 and 1,500 Hz (the loudest 5 ms of
# crackles, 60 ms of the other sounds). A crackle starts abruptly and dies away in a few swings
# that grow longer: fine ones within about 5 ms, coarse ones within about 15 ms. A tonal sound
# repeats itself all along. Noise has no shape.


# %%
def loudest_part(clip: pd.Series) -> np.ndarray:
    """120 ms around the loudest moment, scaled to a peak of 1."""
    band = signal.sosfiltfilt(BAND, clip["clip"])
    width = 0.005 if "rackle" in clip["sound"] else 0.06
    loudest = ndimage.uniform_filter1d(np.abs(band), int(width * RATE)).argmax()
    at = np.clip(loudest, RATE // 20, len(band) - RATE // 12)
    part = band[at - RATE // 20 : at + RATE // 14]
    return part / np.abs(part).max()


# %% jupyter={"source_hidden": true}
expanded = {row: clips for row, clips in page.items() if "noisiest" not in row}
size = (11, 0.8 + 1.2 * len(expanded))
fig, axes = plt.subplots(len(expanded), 6, figsize=size, sharex=True, sharey=True)
for line, (row, clips) in zip(axes, expanded.items(), strict=True):
    for ax, clip in zip(line, clips, strict=True):
        if clip is not None:
            part = loudest_part(clip)
            ax.plot(1000 * np.arange(len(part)) / RATE, part, color="C0", lw=0.9)
            ax.set_title(clip["sound"], fontsize=9)
    line[0].set(ylabel=row.replace("-", "-\n"))
axes[0, 0].set_yticks([])
for ax in axes[-1]:
    ax.set_xlabel("time [ms]")
figures.save(fig, "01-waveforms", profile)

# %% [markdown]
# ### Listening
#
# Use headphones. These are the synthetic adult's sounds. There is no player for real recordings: a
# notebook with players carries the sound inside, and patients' recordings stay where they are.

# %% tags=["nbval-ignore-output"]
for sound, clip in list(zip(PAGE, page["synthetic-icbhi"], strict=True))[:5]:
    display(Markdown(sound), Audio(signal.resample_poly(clip["clip"], 2, 1), rate=2 * RATE))

# %% [markdown]
# ### Do the features agree with the labels?
#
# Every kind of crackle should have more bursts than normal breath, and every tonal sound a higher
# tonality. In the synthetic corpora this must hold; in the real ones the answer is computed.

# %% tags=["check"]
rows = []
for name, table in medians.groupby("corpus"):
    table = table.droplevel("corpus").rename(str.lower)
    crackles = table.filter(regex="crackle$", axis=0)["bursts"]
    tonal = table.filter(regex="^(wheeze|rhonchi|stridor)$", axis=0)["tonality"]
    bursts = (crackles > table.loc["normal", "bursts"]).all()
    tones = (tonal > table.loc["normal", "tonality"]).all()
    assert name not in made or (bursts and tones)
    rows.append((name, "yes" if bursts else "no", "yes" if tones else "no"))
columns = ["corpus", "crackles have more bursts", "tonal sounds have a higher tonality"]
pd.DataFrame(rows, columns=columns)

# %% [markdown]
# ## Data cards
#
# After *Datasheets for Datasets* (Gebru et al. 2021). The upper rows come from
# `data/registry.toml`. The rows from "recordings" on are counted in what this run has read.


# %%
def counted(corpus) -> dict:
    recordings, done = corpus.recordings, corpus.report["done"]
    both = len(splits.shared_patients(corpus))
    return {
        "recordings": f"{len(recordings)}, {recordings['duration_s'].sum() / 3600:.2f} h",
        "patients": f"{recordings['patient_id'].nunique()}, on both sides: {both}",
        "events": ", ".join(f"{c} {n}" for c, n in zip(CLASSES, corpus.counts(), strict=True)),
        "rates [Hz]": ", ".join(map(str, sorted(recordings["sample_rate"].unique()))),
        "devices": ", ".join(sorted(recordings["device"].unique())),
        "left out": f"{(done == 'left out').sum()}, not here: {(done == 'absent').sum()}",
        "equal audio": str(len(corpus.duplicates())),
    }


# %%
for name, corpus in corpora.items():
    source = find(name)
    stated = ("title", "home", "citation", "terms", "consent")
    card = {field: source.entry[field] for field in stated if field in source.entry}
    for file in source.entry.get("files", []):
        checksum = file.get("sha256", file.get("md5", "no checksum"))
        card[file["name"]] = f"{checksum} ({file['checksum_from']})"
    labels = ", ".join(f"{label} -> {kind}" for label, kind in source.labels.items())
    card |= {"label mapping": labels} | counted(corpus)
    table = pd.DataFrame(card.items(), columns=["field", "value"])
    display(Markdown(f"**{name}**\n\n{results.markdown(table)}"))

# %% [markdown]
# What no file can count:
#
# | | ICBHI 2017 | SPRSound (BioCAS 2022) |
# | :--- | :--- | :--- |
# | made for | a challenge: crackles and wheezes in a cycle | a challenge: events and recordings of children |
# | labelled | whole cycles; crackle, wheeze: yes or no | parts of a breath, seven kinds; "Poor Quality" |
# | here as | normal, crackle, wheeze, both | both crackles → crackle; wheeze, rhonchi, stridor → wheeze |
# | file names hold | patient, place on the chest, device | patient, age, gender, place on the chest |
# | fit for | comparing methods on one split | testing on other patients, ages and another device |
# | not fit for | diagnosis; claims about a device or a clinic | diagnosis; claims about adults |
# | mind | patients in both splits; device and split are confounded | children; two licences are named |
#
# Neither corpus is shipped with this companion, and no recording leaves your machine. What the
# patients agreed to is known only as far as the owners state it: stay within research, and publish
# no sound and no list of patients.
#
# ## What we found
#
# - Labels come from different annotators and cover different stretches of sound: a cycle in ICBHI
#   holds a whole breath, an event in SPRSound may be a part of one. Most of a model's input is
#   repetition.
# - Device and split are not independent in ICBHI, so a score there mixes lung sounds with the
#   change of device. A sample rate promises a bandwidth that the device didn't deliver.
# - Where patients are in both splits, moving them also changes the class balance of the test set,
#   because rare classes come from few patients. A split of recordings at random looks as balanced
#   as any, and tests on patients it was trained on.
# - The synthetic sounds have the shapes that a physician looks for, and are cleaner than real
#   ones: a real wheeze bends and fades, rumble and rubbing lie over it, and real normal breath
#   (sc) isn't free of bursts. So the demo shows that the code works; its scores prove nothing
#   about patients.
#
# ## Try next
#
# - Open a recording that stands in the report above and decide yourself.
# - Change the seed in `at_random` and count again: how many patients are in both splits, how do
#   the rare classes change?
# - Draw the page of sounds with `noisy=True`, or (sc) `by_features(..., rank=20)`: which sounds
#   are lost first?
# - Test every patient once (`split = "folds"` of a profile in `experiments.toml`): how does the Score
#   of the patients differ from fold to fold?
#
# [Previous: Start here](00_start_here.ipynb) · [Next: Measure quality](02_measure_quality.ipynb) ·
# [Glossary](../docs/glossary.md)
