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
# **You will hold:** both corpora in one table schema, counted by class, device, patient and split; what was set aside
# and why; other splits beside the official one; a page of sounds to look at and listen to; and a data card of each.
#
# **Stands for:** the paper's section on data sets. **Costs:** under a minute (demo), about a minute (sc).
#
# ICBHI marks breathing **cycles** in a text file beside each recording; SPRSound marks **events** in JSON. Both end as
# one table of events with a label: normal, crackle, wheeze or both. On the demo profile the recordings are synthetic
# and lie in the owners' exact layouts, so that everything below runs the same code as on patients' recordings.

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""

# %%
import dataclasses
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Audio, Markdown, display
from scipy import ndimage, signal

from qlung import audio, load_corpus
from qlung.book import figures
from qlung.corpora import CLASSES, fetch, splits, synthetic
from qlung.training import profiles

_ = torch.manual_seed(0)
figures.use_style()
icbhi, sprsound = profiles.open_corpora(profile, data).values()
corpora = {"ICBHI": icbhi, "SPRSound": sprsound}
real = profiles.load_profile(profile).recorded

# %% [markdown]
# ## What is there
#
# First against what the owners publish. On the demo profile, and on a part of ICBHI, the two differ, and so does every
# score that could be compared.


# %%
def told(corpus) -> dict:
    counts = {split: corpus.select(split).counts() for split in ("train", "test")}
    return {"recordings": len(corpus.recordings), "patients": corpus.recordings["patient_id"].nunique(), **counts}


rows = []
for name, corpus in corpora.items():
    here, published = told(corpus), fetch.registry()[corpus.name]["expect"]
    for what, value in here.items():
        what = f"{what}: {' / '.join(CLASSES)}" if what in ("train", "test") else what
        value, expected = (" / ".join(map(str, np.ravel(v))) for v in (value, published[what.split(":")[0]]))
        rows.append({"corpus": name, "what": what, "published": expected, "here": value})
pd.DataFrame(rows)

# %% [markdown]
# ## Classes, devices, patients, splits
#
# The official ICBHI split is by patient, and devices went to patients: so the device tells something about the split,
# and a model that learns the device is tested on other devices than it was trained on.

# %%
rows = []
for name, corpus in corpora.items():
    for (device, split), recordings in corpus.recordings.groupby(["device", "split"]):
        part = corpus.select(split, device=device)
        size = {"patients": recordings["patient_id"].nunique(), "recordings": len(recordings)}
        size |= {"minutes": round(recordings["duration_s"].sum() / 60, 1), "events": len(part.events)}
        rows.append({"corpus": name, "device": device, "split": split, **size,
                     **dict(zip(CLASSES, part.counts(), strict=True))})  # fmt: skip
counted = pd.DataFrame(rows).sort_values(["corpus", "device", "split"], ascending=[True, True, False])
counted = counted.reset_index(drop=True)
counted


# %%
def stack(ax, names, counts) -> None:
    """One bar a row of ``counts``, divided by class, from the top down."""
    counts = np.array(counts)
    share = 100 * counts / counts.sum(axis=1, keepdims=True)
    left = np.cumsum(share, axis=1) - share
    for k, label in enumerate(CLASSES):
        _ = ax.barh(list(names), share[:, k], left=left[:, k], color=figures.CLASS_COLOURS[label], label=label)
    ax.invert_yaxis()
    ax.grid(visible=False)
    _ = ax.set(xlabel="events [%]", xlim=(0, 100))


# %%
fig, (ax, beside) = plt.subplots(1, 2, figsize=(10, 1 + 0.42 * len(counted)), width_ratios=[1.3, 1])
names = [f"{r.corpus}, {r.device}, {r.split}\n{r.events} events; patients: {r.patients}" for r in counted.itertuples()]
stack(ax, names, counted[list(CLASSES)])
_ = fig.legend(*ax.get_legend_handles_labels(), ncols=4, loc="outside upper center")
by_device = counted[counted["corpus"] == "ICBHI"].pivot_table(index="device", columns="split", values="events")
by_device = by_device[["train", "test"]].fillna(0).astype(int)
_ = by_device.plot.barh(ax=beside, color=[figures.GREY, "#E69F00"], ylabel="").invert_yaxis()
_ = beside.set(xlabel="cycles", title="ICBHI: devices by side")
figures.save(fig, "01-classes-devices", profile, counted)

# %% [markdown]
# How much does the device tell? Guess the side of a cycle from its device alone, against always saying the bigger side.
# And how uneven are patients: a class margin counts events, but a model meets people.

# %%
cycles = by_device.to_numpy()
print(f"ICBHI, side of the split, guessed from the device: {cycles.max(axis=1).sum() / cycles.sum():.0%} right,",
      f"without it {cycles.sum(axis=0).max() / cycles.sum():.0%}")  # fmt: skip
for name, corpus in corpora.items():
    train = corpus.select("train")
    patient = splits.patients_of_events(train)
    by_class = train.events.groupby([train.events["label"], patient]).size()
    largest = by_class.groupby(level=0).max() / by_class.groupby(level=0).sum()
    print(f"{name}, training: the patient with most events of a class holds",
          ", ".join(f"{share:.0%} of {CLASSES[k]}" for k, share in largest.items()))  # fmt: skip

# %% [markdown]
# ## Patients on both sides, and other splits
#
# A patient in training and test lets a model recognise the patient. In ICBHI's full official split these are patients
# 156 and 218; here they are computed, not assumed.

# %%
for name, corpus in corpora.items():
    told_of = [f"{row.patient_id} ({row.train} events in train, {row.test} in test)"
               for row in splits.shared_patients(corpus).itertuples()]  # fmt: skip
    print(f"{name}: on both sides:", ", ".join(told_of) or "nobody")

# %% [markdown]
# `official_disjoint` moves them to one side. "To test" keeps every official test event in the test set; "to train"
# keeps the training set whole. Beside them what a careless split does, recordings at random, and the first of five
# folds that keep patients together.


# %%
def at_random(corpus):
    side = np.random.default_rng(0).choice(["train", "test"], len(corpus.recordings), p=[0.6, 0.4])
    return splits.with_split(corpus, pd.Series(side))


rules = {"official": lambda c: c, "disjoint, moved to test": splits.official_disjoint,
         "disjoint, moved to train": lambda c: splits.official_disjoint(c, "train"),
         "five folds by patient, the first": lambda c: splits.grouped_folds(c)[0],
         "recordings at random": at_random}  # fmt: skip
rows = []
for name, corpus in corpora.items():
    for rule, divide in rules.items():
        divided = divide(corpus)
        both, test = splits.shared_patients(divided), divided.select("test")
        size = {"patients on both sides": len(both), "test events": len(test.events), "of theirs": both["test"].sum()}
        rows.append({"corpus": name, "split": rule, **size, **dict(zip(CLASSES, test.counts(), strict=True))})
divisions = pd.DataFrame(rows)
divisions

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 2.8), sharey=True)
fig.get_layout_engine().set(wspace=0.06)
for ax, (name, part) in zip(axes, divisions.groupby("corpus"), strict=True):
    stack(ax, part["split"], part[list(CLASSES)])
    _ = ax.set(title=f"{name}: classes of the test side", xlabel="test events [%]")
axes[0].set_ylim(len(rules) - 0.5, -0.5)  # the shared axis was turned twice
_ = fig.legend(*axes[0].get_legend_handles_labels(), ncols=4, loc="outside upper center")
figures.save(fig, "01-splits", profile, divisions)

# %% [markdown]
# For choosing an epoch or a setting, a validation side is taken out of training, again by whole patients; the test side
# stays untouched. The check holds for every rule that promises it, whatever the corpora.

# %% tags=["check"]
for name, corpus in corpora.items():
    divided = splits.validation(splits.official_disjoint(corpus))
    sides = divided.recordings.groupby("split")["patient_id"].agg(set)
    assert set.union(*sides) == set(corpus.recordings["patient_id"])
    assert sum(map(len, sides)) == len(set.union(*sides))
    tested = [event for fold in splits.grouped_folds(corpus) for event in fold.select("test").events["event_id"]]
    assert sorted(tested) == sorted(corpus.events["event_id"])
    shares = divided.events["split"].value_counts(normalize=True)[["train", "validation", "test"]]
    print(f"{name}: no patient on two sides, every event tested once in five folds;",
          ", ".join(f"{split} {share:.0%}" for split, share in shares.items()))  # fmt: skip

# %% [markdown]
# ## Durations, and what repeat-padding does
#
# The family's recipe feeds 8 s. A shorter event is repeated until it fills them, so most of a typical input is a copy.
# Where classes differ in length, the number of copies tells the class.

# %%
lengths = []
for name, corpus in corpora.items():
    seconds = corpus.events["end_s"] - corpus.events["start_s"]
    table = pd.DataFrame({"seconds": seconds, "copied": 100 * audio.copied_share(seconds)})
    lengths.append(table.assign(corpus=name, label=np.array(CLASSES)[corpus.events["label"]]))
lengths = pd.concat(lengths)
lengths["over 8 s"] = lengths["seconds"] > 8
by_class = lengths.groupby(["corpus", "label"])
copies = by_class["seconds"].agg(["count", "min", "median", "max"]).round(2).add_suffix(" [s]")
copies = copies.rename(columns={"count [s]": "events"}).assign(**{
    "longer than 8 s": by_class["over 8 s"].sum(), "copied share, mean [%]": by_class["copied"].mean().round(),
})  # fmt: skip
copies = copies.reindex(CLASSES, level="label")
copies

# %%
ours = load_corpus("synthetic")  # a picture that may be shown anywhere holds nobody's breath
typical = ours.events.eval("end_s - start_s").sub(lengths["seconds"].median()).abs().idxmin()
chosen = dataclasses.replace(ours, events=ours.events.loc[[typical]])
clip, own = next(audio.cut_clips(chosen, 4000))[1], len(next(audio.cut_clips(chosen, 4000, None))[1])
fig, axes = plt.subplot_mosaic([["clip", "clip"], ["ICBHI", "SPRSound"]], figsize=(10, 4.4), height_ratios=[1, 1.7])
t = np.arange(len(clip)) / 4000
_ = axes["clip"].plot(t[own:], clip[own:], color="#BBBBBB", lw=0.5, label="copies")
_ = axes["clip"].plot(t[:own], clip[:own], color="black", lw=0.5, label="the event")
_ = axes["clip"].set(title="A synthetic event as a model hears it", xlabel="time [s]", yticks=[], xlim=(0, 8))
_ = axes["clip"].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
for name, part in lengths.groupby("corpus"):
    groups = [part.loc[part["label"] == label, "copied"] for label in CLASSES]
    style = {"orientation": "horizontal", "widths": 0.6, "patch_artist": True, "flierprops": {"ms": 2, "alpha": 0.3}}
    boxes = axes[name].boxplot(groups, **style)
    for box, line, label in zip(boxes["boxes"], boxes["medians"], CLASSES, strict=True):
        box.set(facecolor=figures.CLASS_COLOURS[label], edgecolor="none")
        line.set(color="black")
    axes[name].set_yticks(range(1, 5), [f"{c} (n={len(g)})" for c, g in zip(CLASSES, groups, strict=True)])
    _ = axes[name].set(title=name, xlabel="share of the 8 s input that is copy [%]", xlim=(0, 100), ylim=(4.6, 0.4))
figures.save(fig, "01-durations", profile, copies.reset_index())

# %% [markdown]
# ## Rates and bandwidth
#
# A sample rate bounds a recording's bandwidth, and resampling to 16 kHz doesn't bring back what the device cut. The
# bandwidth is the frequency below which 99 % of the power lies; up to 40 recordings of each device and rate are read.
# Lung sounds have little power above some hundred hertz, so the spectra beside it show where a device stops.

# %%
BANDS = np.arange(25, 4000, 25.0)
rows, curves = [], []
for name, corpus in corpora.items():
    for (device, rate), part in corpus.recordings.groupby(["device", "sample_rate"]):
        some = part.sort_values("recording_id").iloc[:: -(-len(part) // 40)]
        kind = f"{name}, {device}, {rate / 1000:g} kHz"
        for path in some["path"]:
            samples = audio.read(path)[0]
            frequency, power = signal.welch(samples, rate, nperseg=max(256, rate // 25))
            level = 10 * np.log10(np.interp(BANDS, frequency, power, right=np.nan) + 1e-20)
            rows.append({"kind": kind, "nyquist_hz": rate / 2, "bandwidth_hz": audio.bandwidth(samples, rate)})
            curves.append(level - np.nanmax(level))
bands = pd.DataFrame(rows)
kinds = bands.groupby("kind", sort=False).agg(read=("kind", "size"), nyquist_hz=("nyquist_hz", "first"),
                                              median_bandwidth_hz=("bandwidth_hz", "median"))  # fmt: skip
kinds.round({"median_bandwidth_hz": -1}).astype(int)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 1.2 + 0.42 * len(kinds)), width_ratios=[1, 1.1])
for row, (kind, told_of) in enumerate(kinds.iterrows()):
    its = (bands["kind"] == kind).to_numpy()
    values, colour = bands.loc[its, "bandwidth_hz"], f"C{row}"
    _ = left.plot(values, row + np.linspace(-0.25, 0.25, len(values)), "o", ms=3, alpha=0.5, mec="none", color=colour)
    _ = left.plot(told_of["nyquist_hz"], row, "|", ms=16, mew=2, color="black")
    _ = right.plot(BANDS, np.median(np.array(curves)[its], axis=0), color=colour, label=kind)
left.set_yticks(range(len(kinds)), [f"{kind} (n={n})" for kind, n in kinds["read"].items()])
_ = left.set(xscale="log", xlabel="99 % bandwidth [Hz]; bar: half the sample rate", ylim=(len(kinds) - 0.5, -0.5))
left.set_xticks([50, 100, 200, 500, 1000, 2000, 5000, 20000], ["50", "100", "200", "500", "1k", "2k", "5k", "20k"])
left.minorticks_off()
for row, label in enumerate(left.get_yticklabels()):
    label.set_color(f"C{row}")
_ = right.set(xlabel="frequency [Hz]", ylabel="median level [dB re highest]", xlim=(0, 4000), ylim=(-100, 3))
figures.save(fig, "01-bandwidth", profile, bands)

# %% [markdown]
# ## Labels, and what is odd about them
#
# What the annotators wrote, and what became of it. ICBHI doesn't tell fine from coarse crackles nor wheezes from
# rhonchi; SPRSound does, and four classes throw that away.

# %%
written = pd.concat([corpus.events.assign(corpus=name) for name, corpus in corpora.items()])
written["becomes"] = np.array(CLASSES)[written["label"]]
pd.crosstab([written["corpus"], written["raw_label"], written["becomes"]], written["split"])[["train", "test"]]

# %%
odd = {}
for name, corpus in corpora.items():
    events = corpus.events.sort_values(["recording_id", "start_s"])
    seconds, before = events["end_s"] - events["start_s"], events.groupby("recording_id")["end_s"].shift()
    kinds_heard = events.groupby("recording_id")["label"].nunique()
    unlabelled = corpus.recordings[~corpus.recordings["recording_id"].isin(events["recording_id"])]
    devices = corpus.recordings.drop_duplicates(["patient_id", "device"])
    odd[name] = {
        "events shorter than 0.5 s": f"{(seconds < 0.5).sum()} ({(seconds < 0.5).mean():.1%})",
        "events that overlap the one before": str((events["start_s"] < before - 0.002).sum()),
        "recorded time inside an event": f"{seconds.sum() / corpus.recordings['duration_s'].sum():.0%}",
        "recordings without any event": str(len(unlabelled)),
        "of these labelled Poor Quality": str((unlabelled["quality_label"] == "poor").sum()),
        "recordings with one class only": f"{(kinds_heard == 1).mean():.0%}",
        "patients heard with several devices": str(devices[devices.duplicated("patient_id")]["patient_id"].nunique()),
        "recordings with another's audio": str(len(corpus.duplicates())),
    }  # fmt: skip
pd.DataFrame(odd)

# %% [markdown]
# ## What was set aside
#
# Nothing is dropped without a line in `corpus.report`: `left out` is a whole recording, `event left out` one event,
# `absent` a recording that the split names and that isn't here; all else was kept or mended as it says.

# %%
reports = [corpus.report.assign(corpus=name) for name, corpus in corpora.items()]
reports = pd.concat(reports)
reports["what"] = reports["what"].str.replace(r"[\d.]*\d", "#", regex=True)
summary = reports.groupby(["corpus", "done", "what"]).size().rename("lines").reset_index()
if summary.empty:
    print("nothing to report: every recording is there and whole")
else:
    display(summary)

# %% [markdown]
# A report without lines proves little. So damage a small synthetic corpus in the ways that downloads and hands damage
# them, and read it again.

# %% tags=["check"]
with tempfile.TemporaryDirectory() as folder:
    root = synthetic.write(Path(folder) / "damaged", patients=9, events=2)
    wavs = sorted(root.rglob("icbhi/*/*.wav"))
    wavs[0].write_bytes(wavs[0].read_bytes()[:-1000])
    wavs[1].write_bytes(wavs[2].read_bytes())
    wavs[3].with_suffix(".txt").write_text("0,200 2,800 0 1\n")
    wavs[4].with_suffix(".txt").write_text("0.200 999.000 0 1\n")
    wavs[5].with_suffix(".txt").unlink()
    wavs[6].unlink()
    wavs[7].write_bytes(wavs[7].read_bytes()[:44] + bytes(len(wavs[7].read_bytes()) - 44))
    damaged = load_corpus("icbhi", root)
assert set(damaged.report["recording_id"]) >= {wavs[i].stem for i in (0, 3, 4, 5, 6, 7)}
assert set(damaged.duplicates().iloc[0, [0, 2]]) == {wavs[1].stem, wavs[2].stem}
assert not damaged.report["recording_id"].isin([wavs[8].stem]).any()
damaged.report

# %% [markdown]
# ## Sounds to recognise
#
# Six sounds as a chest physician names them. **Crackles** are short bursts over many frequencies, thin vertical lines:
# fine ones short, high and late in inspiration, coarse ones longer and lower. **Wheezes** are long level lines, often
# with a harmonic above; **rhonchi** the same below 200 Hz, a dense ladder of harmonics; **stridor** high and in
# inspiration. **Normal** breath is noise that swells and falls.
#
# Of synthetic clips the truth is known: how loud the sounds are against the noise (SNR) and how the clip was spoilt.
# First: does the loader read what was written?

# %% tags=["check"]
truth = synthetic.truth()
made = {"synthetic adult": load_corpus("synthetic"), "synthetic child": load_corpus("synthetic", subset="sprsound")}
for name, corpus in made.items():
    both = corpus.events.merge(truth, on="event_id", suffixes=("", "_true"))
    assert len(both) == len(corpus.events)
    assert (both["label"] == both["label_true"]).all()
    assert (both["start_s"] - both["start_s_true"]).abs().max() < 0.0011
    print(f"{name}: {len(both)} events, all with the label and times that were written;",
          f"SNR {both['snr_db'].min():.0f} to {both['snr_db'].max():.0f} dB,",
          f"{(both['degradation'] != 'none').mean():.0%} spoilt")  # fmt: skip

# %% [markdown]
# Three plain numbers tell the families apart: **bursts**, how many moments a second are three times louder than the
# 150 ms around them, and **swell**, between the soft and the loud parts of the breath [dB], both between 300 and
# 1,500 Hz, where the heart is faint; and **line**, how far a frequency above 150 Hz is above its neighbours [dB].
# Up to 60 events of a kind are read, drawn by lot. A fast heart can still look like a regular row of crackles.

# %%
RATE = 4000
BAND = signal.butter(4, [150, 1500], "bandpass", fs=RATE, output="sos")
ABOVE_HEART = signal.butter(4, [300, 1500], "bandpass", fs=RATE, output="sos")


def stands_out(clip: np.ndarray) -> dict:
    """Bursts [1/s], line [dB] and swell [dB] of a clip at 4 kHz."""
    loud = np.abs(signal.sosfiltfilt(ABOVE_HEART, clip))
    short, slow = (ndimage.uniform_filter1d(loud, int(RATE * seconds)) for seconds in (0.005, 0.1))
    around = ndimage.median_filter(short, int(0.15 * RATE) + 1) + 1e-4 * short.max()
    peaks, _ = signal.find_peaks(short / around, height=3, distance=int(0.015 * RATE))
    level = 10 * np.log10(signal.welch(clip, RATE, nperseg=512)[1][19:192] + 1e-20)
    soft, high = np.percentile(slow, [15, 85]) + 1e-9
    line = (level - ndimage.median_filter(level, 31)).max()
    return {"bursts": len(peaks) * RATE / len(clip), "line": line, "swell": 20 * np.log10(high / soft)}


# %%
def measured(corpus, sounds: pd.Series) -> pd.DataFrame:
    """Clips of 0.8 to 4 s and how they stand out; ``sounds`` names the sound of each event_id."""
    events = corpus.events.assign(sound=corpus.events["event_id"].map(sounds)).query("0.8 < end_s - start_s < 4")
    events = events.sample(frac=1, random_state=0).groupby("sound").head(60).sort_index()
    clips = audio.cut_clips(dataclasses.replace(corpus, events=events), RATE, None)
    rows = [{"event_id": event_id, "clip": clip} | stands_out(clip) for event_id, clip in clips]
    return pd.DataFrame(rows).merge(events[["event_id", "recording_id", "sound"]])


# %%
shelf = {name: measured(corpus, truth.set_index("event_id")["sound"]) for name, corpus in made.items()}
if real:
    shelf |= {f"real, {name}": measured(c, c.events.set_index("event_id")["raw_label"]) for name, c in corpora.items()}
heard = pd.concat([table.assign(source=name) for name, table in shelf.items()])
by_sound = heard.groupby(["source", "sound"])
pairs = by_sound[["bursts", "line", "swell"]].median().assign(clips=by_sound.size())
pairs.round({"bursts": 1, "line": 0, "swell": 0})

# %% [markdown]
# Which clips go on the page: the clearest of each kind, not a typical one. Of synthetic clips that is the unspoilt one
# with the highest true SNR. Of real clips it is decided by the numbers above, without the quarter that swells most
# (speech, knocks, gaps): the crackle with most bursts, the tonal sound with the clearest line, the normal breath with
# fewest bursts. ICBHI's own labels say only crackle, wheeze or both, so its row shows two of each where the others
# show finer kinds; each panel carries the label that its annotator gave. Where the profile has no real recordings
# (demo), the noisiest synthetic clips stand there instead.

# %%
PAGE = ["Normal", "Fine Crackle", "Coarse Crackle", "Wheeze", "Rhonchi", "Stridor"]
IN_ICBHI = ["normal", "crackle", "crackle", "wheeze", "wheeze", "crackle+wheeze"]


def clearest(table: pd.DataFrame, sound: str, rank: int = 0) -> pd.Series | None:
    """The real clip whose sound stands out most, or the next one for a higher rank; None where there are too few."""
    found = table[table["sound"] == sound]
    found = found[found["swell"] <= found["swell"].quantile(0.75)]
    normal = sound.lower() == "normal"
    by = "bursts" if normal or "rackle" in sound else "line"
    found = found.sort_values([by, "swell"], ascending=[normal, False])
    found = found.drop_duplicates("recording_id")
    return found.iloc[rank] if rank < len(found) else None


def by_truth(table: pd.DataFrame, sound: str, noisy: bool = False) -> pd.Series:
    """The unspoilt synthetic clip with the highest true SNR, or the clip with the lowest."""
    found = table[table["sound"] == sound].merge(truth[["event_id", "snr_db", "degradation"]])
    found = found if noisy else found[found["degradation"] == "none"]
    return found.loc[found["snr_db"].idxmin() if noisy else found["snr_db"].idxmax()]


# %%
page = {}
for name, corpus_name in zip(made, corpora, strict=True):
    page[name] = [by_truth(shelf[name], sound) for sound in PAGE]
    if real:
        labels = IN_ICBHI if corpus_name == "ICBHI" else PAGE
        ranks = [labels[:k].count(label) for k, label in enumerate(labels)]
        table = shelf[f"real, {corpus_name}"]
        page[f"real, {corpus_name}"] = [clearest(table, label, k) for label, k in zip(labels, ranks, strict=True)]
if not real:
    page["noisiest adult"] = [by_truth(shelf["synthetic adult"], sound, noisy=True) for sound in PAGE]


def caption(row: str, clip: pd.Series) -> str:
    """The label, and for a synthetic clip what the truth says."""
    if row.startswith("real"):
        return clip["sound"]
    spoilt = "" if clip["degradation"] == "none" else f", {clip['degradation']}"
    return f"{clip['sound']}\nSNR {clip['snr_db']:.0f} dB{spoilt}"


# %%
fig, axes = plt.subplots(len(page), 6, figsize=(11, 1.95 * len(page)), sharey=True)
steps = plt.get_cmap("magma", 16)
drawn = []
for line, (row, clips) in zip(axes, page.items(), strict=True):
    line[0].set_ylabel(f"{row}\nfrequency [Hz]")
    for ax, clip in zip(line, clips, strict=True):
        ax.grid(visible=False)
        if clip is None:
            continue
        f, _, power = signal.spectrogram(clip["clip"], RATE, "hann", nperseg=160, noverlap=144, nfft=512)
        level = 10 * np.log10(power[f <= 1600] + 1e-20)
        extent, top = (0, len(clip["clip"]) / RATE, 0, 1600), level[f[f <= 1600] > 100].max()
        image = ax.imshow(level - top, steps, aspect="auto", origin="lower", extent=extent, vmin=-48, vmax=0,
                          interpolation_stage="data")  # fmt: skip
        ax.set_title(caption(row, clip), fontsize=9)
        drawn.append({"row": row} | clip.drop(["clip", "event_id", "recording_id"]).to_dict())
_ = [ax.set_xlabel("time [s]") for ax in axes[-1]]
_ = fig.colorbar(image, ax=axes, label="level [dB re highest above 100 Hz]", shrink=0.4, pad=0.01)
figures.save(fig, "01-spectrograms", profile, pd.DataFrame(drawn))

# %% [markdown]
# What a trained eye looks at next is the time-expanded waveform: 120 ms around the loudest moment between 150 and
# 1,500 Hz (the loudest 5 ms of crackles, 60 ms of the others). A crackle starts abruptly and dies away in a few swings
# that grow longer; fine ones are over within about 5 ms, coarse ones take about 15 ms. A tonal sound repeats itself all
# along. Noise has no shape.

# %%
expanded = {row: clips for row, clips in page.items() if "noisiest" not in row}
fig, axes = plt.subplots(len(expanded), 6, figsize=(11, 0.8 + 1.2 * len(expanded)), sharex=True, sharey=True)
for line, (row, clips) in zip(axes, expanded.items(), strict=True):
    line[0].set_ylabel(row.replace(" ", "\n"))
    for ax, clip in zip(line, clips, strict=True):
        if clip is None:
            continue
        band = signal.sosfiltfilt(BAND, clip["clip"])
        width = 0.005 if "rackle" in clip["sound"] else 0.06
        loudest = ndimage.uniform_filter1d(np.abs(band), int(width * RATE)).argmax()
        at = np.clip(loudest, RATE // 20, len(band) - RATE // 12)
        piece = band[at - RATE // 20 : at + RATE // 14]
        style = {"lw": 0.9, "color": "black" if row.startswith("real") else "C0", "rasterized": True}
        _ = ax.plot(1000 * np.arange(len(piece)) / RATE, piece / np.abs(piece).max(), **style)
        ax.set_title(clip["sound"], fontsize=9)
_ = [ax.set_xlabel("time [ms]") for ax in axes[-1]]
axes[0, 0].set_yticks([])
figures.save(fig, "01-waveforms", profile)

# %% [markdown]
# And to listen to, with headphones: the synthetic adult. No player for real recordings: a notebook with
# players carries the sound inside, and patients' recordings stay where they are.

# %% tags=["nbval-ignore-output"]
for sound, clip in list(zip(PAGE, page["synthetic adult"], strict=True))[:5]:
    print(sound)
    display(Audio(signal.resample_poly(clip["clip"], 2, 1), rate=2 * RATE))

# %% [markdown]
# Does the measurement agree with the ear? In the synthetic corpora it must; in the real ones the answer is computed.

# %% tags=["check"]
for source, table in pairs.groupby("source"):
    of = table.droplevel("source")
    crackles, tonal = of.filter(regex="(?i)crackle$", axis=0), of.filter(regex="(?i)^(wheeze|rhonchi|stridor)$", axis=0)
    normal = of.loc["normal" if "normal" in of.index else "Normal"]
    burst, line = (crackles["bursts"] > normal["bursts"]).all(), (tonal["line"] > normal["line"]).all()
    assert source.startswith("real") or (burst and line)
    print(f"{source}: every kind of crackle has more bursts than normal breath: {'yes' if burst else 'no'};",
          f"every tonal sound a clearer line: {'yes' if line else 'no'}")  # fmt: skip

# %% [markdown]
# ## Two data cards
#
# After *Datasheets for Datasets* (Gebru et al. 2021). The upper rows come from `data/registry.toml`, the rows from
# "recordings" on are counted in what this run has read, on the demo profile in the synthetic recordings.

# %%
for corpus in corpora.values():
    card = fetch.card(corpus.name, corpus)
    lines = [f"| {row.field} | {row.value} |" for row in card.itertuples()]
    display(Markdown("\n".join(["| | |", "| :--- | :--- |", *lines])))

# %% [markdown]
# What no file can count:
#
# | | ICBHI 2017 | SPRSound (BioCAS 2022) |
# | :--- | :--- | :--- |
# | made for | a challenge: crackles and wheezes in a cycle | a challenge: events and records of children |
# | labelled | whole cycles; crackle, wheeze: yes or no | parts of a breath, seven kinds; records, "Poor Quality" too |
# | here as | normal, crackle, wheeze, both | both crackles → crackle; wheeze, rhonchi, stridor → wheeze |
# | names tell | patient, place on the chest, device | patient, age, gender, place on the chest |
# | fit for | comparing methods on one split | testing on other patients, ages and another device |
# | not fit for | diagnosis; claims about a device or a clinic | diagnosis; claims about adults |
# | mind | patients on both sides; device tells split | children; two licences are named |
#
# Neither corpus is shipped with this companion, and no recording leaves your machine. What the patients agreed to is
# known only as far as the owners tell it: stay within research, and publish no sound and no list of patients.
#
# ## What we found
#
# Labels come from different hands and mean different stretches of sound: a cycle in ICBHI holds a whole breath, an
# event in SPRSound may be a part of one. Most of what a model hears is repetition. Device and split are not
# independent in ICBHI, so a score there mixes lung sounds with the change of device. A sample rate promises a bandwidth
# that the device didn't deliver. Where patients stand on both sides, moving them changes the class balance of the test
# side as well as its honesty, because rare classes sit in few patients; a split of recordings at random looks as
# balanced as any and tests on patients it has trained on.
#
# The synthetic sounds have the shapes that a physician looks for, and are cleaner than life: a real wheeze bends and
# fades, rumble and rubbing lie over it, and real normal breath (sc) isn't free of bursts. So the demo shows that the
# code works, and its scores say nothing about patients.
#
# ## Try next
#
# - Open a recording that stands in the report above and decide yourself.
# - Change the seed in `at_random` and count again: how many patients are on both sides, how do the rare classes move?
# - Draw the page of sounds with `noisy=True`, or (sc) `clearest(..., rank=20)`: which sounds are lost first?
# - Train on `official_disjoint` (`split` of a profile in `experiments.toml`) and see whether the score falls.
