# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,-kernelspec,-jupytext.text_representation
# ---

# %% [markdown]
# # Evaluate on ICBHI
#
# You measure every method on the corpus it was trained for, with the uncertainty that belongs to each number.
#
# - **What you will get:** every method's scores with confidence intervals over patients and seeds; paired tests against
#   cross-entropy; confusion matrices; calibration; the angles between classes; scores per device; and how the scores
#   fall as the audio is degraded.
# - **Reproduces:** Table 1, and claims C6 and C7.
# - **Runtime:** a minute once the runs of notebook 05 are there (demo); on sc a few minutes more, once, to compute the
#   features of degraded audio.
#
# Previous: [Ablate the margins](05_ablate_margins.ipynb) ·
# Next: [Evaluate on SPRSound](07_evaluate_sprsound.ipynb) · [Glossary](../docs/glossary.md) ·
# [Results of the committed studies](../RESULTS.md) · your own: `runs/<profile>/results.md`

# %% [markdown]
# ## The ICBHI score
#
# - **Specificity (Sp)** is the share of normal cycles called normal.
# - **Sensitivity (Se)** is the share of abnormal cycles given their **exact** class: a wheeze called crackle is as
#   wrong as one called normal.
# - **Score** is the mean of the two. So a classifier that always answers "normal" has a Score of 50.
#
# This notebook reads predictions and trains nothing. If runs are missing, the message names the command that trains
# them.

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""

# %% [markdown]
# The setup: imports, then a fixed seed, the predictions, and the test clips.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch

from qlung import evaluation
from qlung.audio import degrade
from qlung.book import display, figures, results
from qlung.corpora import CLASSES
from qlung.evaluation import geometry
from qlung.training import experiments, model, profiles

# %%
torch.manual_seed(0)
figures.use_style()
corpus = profiles.load_profile(profile).train_on
predictions = experiments.load_predictions(profile, data).query("corpus == @corpus")
test = profiles.open_corpora(profile, data)[corpus].select("test")
f"{corpus}: {predictions['patient_id'].nunique()} test patients, {len(test.events)} cycles"

# %% [markdown]
# Most figures compare cross-entropy (CE) with QLung.

# %%
compared = predictions[predictions["method"].isin(["ce", "qlung"])]
backbones = list(compared["backbone"].unique())
COLOURS = {"ce": figures.GREY, "qlung": "#D55E00"}
PALETTE = {figures.METHOD_NAMES[m]: colour for m, colour in COLOURS.items()}

# %% [markdown]
# ## The score by hand
#
# **Checked:** ten cycles whose confusion matrix can be counted on fingers. Three of four normal cycles are right. Of
# six abnormal ones two got their exact class, and three more were called abnormal with the wrong class.

# %% tags=["check"]
truth = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
predicted = [0, 0, 0, 2, 1, 3, 0, 2, 1, 1]
by_hand = evaluation.icbhi_score(truth, predicted)
assert np.allclose(by_hand, (75, 100 * 2 / 6, (75 + 100 / 3) / 2))
assert evaluation.icbhi_score(truth, [0] * 10).score == 50
by_hand

# %% [markdown]
# Two more measures. **Se 2** asks only whether a cycle is abnormal: here five of the six abnormal ones are right.
# **BioCAS** is the score of SPRSound's own challenges: the mean of Score and of the harmonic mean of Sp and Se. It
# punishes an unbalanced answer: always normal gets 25. **F1** is the harmonic mean of precision and recall, and
# macro-F1 its mean over the classes.

# %% tags=["check"]
measures = evaluation.measures(truth, predicted)
macro_f1 = 100 * (3 / 4 + 1 / 3 + 1 / 2 + 0) / 4
assert np.allclose([measures["Se 2"], measures["macro-F1"]], [100 * 5 / 6, macro_f1])
assert evaluation.measures(truth, [0] * 10)["BioCAS"] == 25
pd.Series(measures).round(1).to_dict()

# %% [markdown]
# ## Scores
#
# Means over seeds, ± one standard deviation, beside the trivial baselines.

# %% tags=["nbval-ignore-output"]
results.pretty(evaluation.scores(compared)[1])

# %% [markdown]
# ## Scores on real recordings, and the paper's Table 1
#
# The committed studies are trained and tested on the single-channel part of ICBHI: fewer recordings and smaller
# encoders than the paper's. Their numbers are **not comparable** with the paper's rows below, which are for the full
# ICBHI set.

# %%
committed = results.headline().query("corpus == 'icbhi' and method in ('ce', 'qlung')")
results.pretty(evaluation.scores(committed)[1])

# %% [markdown]
# AST is the Audio Spectrogram Transformer. CLAP means contrastive language-audio pretraining, another encoder.
# Patch-Mix CL, SG-SCL and BTS are names of published methods.

# %%
pd.DataFrame(
    [("CE fine-tuning, AST", 77.14, 41.97, 59.55), ("Patch-Mix CL, AST", 81.66, 43.07, 62.37),
     ("SG-SCL, AST", 79.87, 43.55, 61.71), ("Audio-CLAP", 80.85, 44.67, 62.56),
     ("BTS", 81.40, 45.67, 63.54), ("QLung AST", 81.90, 42.12, 62.01),
     ("QLung CLAP", 81.98, 44.81, 63.39)],
    columns=["paper, Table 1 (icbhi, full)", "Sp", "Se", "Score"],
)  # fmt: skip

# %% [markdown]
# ## Every measure
#
# Means over seeds, in percent; the trivial baselines come last.
#
# - Se 2, Score 2: abnormal or not. Crackle, wheeze, both: recall of that class.
# - ECE: expected calibration error, the distance of confidence from accuracy (0 is best; below).
# - AUROC: area under the receiver operating characteristic, abnormal against normal at every threshold. So it doesn't
#   depend on where a method happens to put its threshold; 50 is chance.

# %% tags=["nbval-ignore-output"]
SHOWN = ["Sp", "Se", "Score", "Se 2", "Score 2", "BioCAS", *CLASSES[1:], "macro-F1", "ECE", "AUROC"]
measures = evaluation.every_measure(predictions)
measures["method"] = measures["method"].map(results.shown)
measures[["corpus", "backbone", "method", *SHOWN]].round(1)

# %% [markdown]
# The best of a column is rarely the best of the next one. A Score can rise because fewer abnormal cycles are missed, or
# because more of them get their exact class. The two-class columns separate the one from the other.
#
# ## Confidence intervals
#
# How far could these numbers be off? Cycles of one patient resemble each other, so patients are resampled, not cycles;
# and seeds are resampled with them. The intervals hold 95 % of 2,000 draws.


# %%
def with_interval(draws):
    """A value per method (row 0 of the bootstrap) with its 95 % interval (the other rows)."""
    bounds = draws.iloc[1:].quantile([0.025, 0.975]).to_numpy()
    table = pd.DataFrame({"value": draws.iloc[0], "low": bounds[0], "high": bounds[1]})
    return table.rename_axis("method")


# %% tags=["nbval-ignore-output"]
tables = {
    (name, backbone): with_interval(evaluation.bootstrap(part, name))
    for backbone, part in compared.groupby("backbone", sort=False)
    for name in ("Sp", "Se", "Score")
}
intervals = pd.concat(tables, names=["measure", "backbone"]).reset_index()
intervals.assign(corpus=corpus).round(1)

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
size = (10, 0.45 * len(intervals) / 3 + 1.5)
fig, axes = plt.subplots(1, 3, figsize=size, sharey=True)
for ax, (name, part) in zip(axes, intervals.groupby("measure", sort=False), strict=True):
    labels = part["backbone"] + ", " + part["method"].map(figures.METHOD_NAMES)
    figures.intervals(ax, part, labels, "value", color=part["method"].map(COLOURS).tolist())
    ax.set(xlabel=f"{name} [%]")
axes[2].axvline(50, color="black", lw=0.8, ls="--")
fig.suptitle(f"Tested on {corpus}, 95 % intervals")
figures.save(fig, "06-intervals", profile, intervals)

# %% [markdown]
# Dashed: always normal.
#
# How many patients is such an interval made of? Where a few hold most of the clips, fewer than there are. The
# **effective number** of patients (Kish) is how many of equal weight would tell as much.

# %%
one = compared[compared["run"] == compared["run"].iloc[0]]
clips = pd.crosstab(one["patient_id"], np.where(one["label"] > 0, "abnormal", "normal"))
clips.columns.name = None
effective = clips.agg(["size", lambda n: (n > 0).sum(), evaluation.effective_number])
effective.set_axis(["patients", "with such clips", "effective number"]).round(1)

# %% [markdown]
# ## Paired differences from cross-entropy
#
# Is a method better than cross-entropy, or was it lucky, with the patients or with the seeds? Each seed is tested on
# each patient, so that a table of differences has a row per seed and a column per patient. Its scatter between columns
# and between rows says how far the mean would move with other patients and other seeds.

# %%
pair = compared[compared["backbone"] == backbones[0]]
parts = evaluation.contributions(pair, "qlung", "ce")
se, df = evaluation.crossed(parts)
found = parts.sum(1).mean(), se, df
dict(zip(["difference", "standard error", "degrees of freedom"], np.round(found, 1).tolist(), strict=True))

# %% [markdown]
# With few seeds that differ, the bootstrap's intervals are too narrow: resampling three values can't show how much a
# fourth would differ. In a simulation with three seeds and no true difference they hold it in 82 to 84 % of cases
# instead of 95 (`benchmarks/coverage.py`). Student's t with the degrees of freedom above makes up for that. So of the
# two intervals, the wider one is quoted.
#
# - `within`: the least margin that holds the 90 % interval. It says how small a difference surely is.
# - `p`: two-sided, by the same t. These comparisons are exploratory and p isn't corrected: of twenty methods that are
#   no better, one reaches 0.05 by chance. The comparisons fixed beforehand are judged in notebook 08, with Holm's
#   correction.
# - `patients`: their effective number on the rarer side.

# %% tags=["nbval-ignore-output"]
contrasts = evaluation.contrasts(predictions)
contrasts["row"] = contrasts["row"].map(results.shown)
display.readable(contrasts, 2)

# %% [markdown]
# **Checked:** a method against itself gives p = 1. One that is right wherever cross-entropy was wrong gives less than
# one in twenty, with as few seeds as these.

# %% tags=["check"]
ce = compared[(compared["method"] == "ce") & (compared["backbone"] == backbones[0])]
twin, perfect = ce.assign(method="twin"), ce.assign(method="perfect", predicted=ce["label"])
assert evaluation.difference(pd.concat([ce, twin]), "twin", "ce")["p"] == 1
assert evaluation.difference(pd.concat([ce, perfect]), "perfect", "ce")["p"] < 0.05
f"on {corpus}, the test separates no difference from a large one"

# %% [markdown]
# **Checked:** Holm's rule on three p values, by hand: the smallest times 3, the next times 2, never decreasing.

# %% tags=["check"]
assert np.allclose(evaluation.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])

# %% [markdown]
# ## Operating points
#
# Two methods can have the same Score and be different, or have different Scores and be the same. A network orders the
# cycles by their odds of being abnormal, and draws a line: what lies above is called abnormal. Where the line lies is a
# choice (here: the most probable class wins). Moving it trades specificity for sensitivity along a curve. A method is
# better in earnest if its curve lies higher, not if its line lies elsewhere on it.
#
# Sensitivity counts exact classes, so the curve ends below 100: where everything is called abnormal, some cycles still
# have the wrong class.


# %%
def mean_curve(part):
    """Se at fixed Sp, mean over seeds."""
    sp = np.linspace(0, 100, 101)
    curves = [evaluation.curve(network) for _, network in part.groupby("seed")]
    se = [np.interp(sp, curve["Sp"], curve["Se"]) for curve in curves]
    return pd.DataFrame({"Sp": sp, "Se": np.mean(se, axis=0)})


# %%
groups = compared.groupby(["backbone", "method"], sort=False)
curves = {key: mean_curve(part) for key, part in groups}
curves = pd.concat(curves, names=["backbone", "method"]).reset_index([0, 1])
points = evaluation.score_table(compared, ["backbone", "method", "seed"])

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
size = (3.6 * len(backbones) + 1, 3.6)
fig, axes = plt.subplots(1, len(backbones), figsize=size, squeeze=False, sharey=True)
for ax, backbone in zip(axes.flat, backbones, strict=True):
    for method, part in curves[curves["backbone"] == backbone].groupby("method", sort=False):
        label = figures.METHOD_NAMES[method]
        ax.plot(part["Sp"], part["Se"], color=COLOURS[method], label=label)
        own = points[(points["backbone"] == backbone) & (points["method"] == method)]
        ax.scatter(own["Sp"], own["Se"], s=18, color=COLOURS[method])
    ax.axline((50, 50), slope=-1, color="black", lw=0.8, ls="--")
    ax.set(title=backbone, xlabel="Sp [%]", xlim=(0, 101), ylim=(-1, 101))
axes[0, 0].set_ylabel("Se, exact class [%]")
axes[0, 0].legend(loc="upper right")
fig.suptitle(f"Sp and Se at every line, tested on {corpus}")
figures.save(fig, "06-operating", profile, curves)

# %% [markdown]
# Line: every operating point, mean over seeds. Dots: where each network drew its line. Dashed: Score 50, that of
# "always normal".
#
# So a difference in Score is split in two: what is left when both methods' lines are drawn by the same rule is **off
# the curve**, better or worse order. The rest is **along the curve**. There are two rules. `prior`: as many cycles are
# called abnormal as there are abnormal ones. `cross-fitted`: the best line on the other patients. Both use labels of
# the test, so they compare methods, and nobody could have had these Scores. `area` is that under the curve, over all
# lines; AUROC ignores the classes of abnormal cycles. Within length it compares cycles of about the same length only,
# so that nothing in it comes from length.


# %%
AREAS = ("area", "AUROC", "AUROC within length")


def at_every_line(part):
    """QLung minus cross-entropy by the line's rule, and in the two areas."""
    rows = {f"Score, {line}": evaluation.difference(evaluation.at_line(part, line), "qlung", "ce")
            for line in evaluation.LINES}  # fmt: skip
    rows |= {name: evaluation.difference(part, "qlung", "ce", name) for name in AREAS}
    return pd.DataFrame(rows).T.rename_axis("QLung minus CE")


# %% tags=["nbval-ignore-output"]
tables = {name: at_every_line(part) for name, part in compared.groupby("backbone", sort=False)}
lines = pd.concat(tables, names=["backbone"]).reset_index()
lines["seeds"] = lines["seeds"].astype(int)
display.readable(lines, 2)

# %% [markdown]
# **Checked:** a twin of cross-entropy that doubles the odds of "normal" has another Score, and differs in nothing else.

# %% tags=["check"]
p = ce[evaluation.PROBABILITIES] * [2, 1, 1, 1]
p = p.div(p.sum(axis=1), axis=0)
twin = ce.assign(method="qlung", predicted=p.to_numpy().argmax(1), **p)
moved = at_every_line(pd.concat([ce, twin], ignore_index=True))["difference"].astype(float)
assert abs(moved["Score, argmax"]) > 0
assert np.allclose(moved.drop("Score, argmax"), 0)
moved.round(2).to_dict()

# %% [markdown]
# Two networks with equal Scores, and one that orders the clips better: can you tell which? Try
# [this exercise](exercises/03_exercises.ipynb#operating-1:-equal-Scores,-different-order).

# %% [markdown]
# ## Confusion matrices
#
# What is confused with what? Rows are the true class. Numbers are percent of a row, summed over seeds.

# %%
confusions = {}
for (backbone, method), part in compared.groupby(["backbone", "method"], sort=False):
    counts = evaluation.confusion(part["label"], part["predicted"])
    confusions[backbone, method] = pd.DataFrame(counts, CLASSES, CLASSES).rename_axis("true")

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
size = (7, 3.1 * len(backbones) + 0.3)
fig, axes = plt.subplots(len(backbones), 2, figsize=size, squeeze=False)
for ax, ((backbone, method), counts) in zip(axes.flat, confusions.items(), strict=True):
    percent = 100 * counts.div(counts.sum(axis=1), axis=0)
    sns.heatmap(percent, vmin=0, vmax=100, cmap="Blues", annot=True, fmt=".0f", cbar=False, ax=ax)
    ax.set(title=f"{backbone}, {figures.METHOD_NAMES[method]}", xlabel="predicted")
    ax.tick_params(axis="y", rotation=0)
fig.suptitle(f"Tested on {corpus}")
table = pd.concat(confusions, names=["backbone", "method"]).reset_index()
figures.save(fig, "06-confusion", profile, table)

# %% [markdown]
# ## Calibration
#
# Does a network know when it is wrong? Of the answers with a confidence of 90 %, nine in ten should be right. Each dot
# holds the cycles of one range of confidence (all seeds; none where there are fewer than ten). A larger dot holds more
# cycles. Below the dashed line a network is overconfident. **ECE**, the expected calibration error, is the mean
# distance from that line.
#
# The linear head of cross-entropy learns its own scale. The angular one multiplies cosines by $s_a = 37$.

# %%
seeds = evaluation.measure_table(compared, ["backbone", "method", "seed"])
ece = seeds.groupby(["backbone", "method"])["ECE"].agg(["mean", "std", "size"])
tables = {
    key: evaluation.reliability(part["label"], part[["p0", "p1", "p2", "p3"]])
    for key, part in compared.groupby(["backbone", "method"], sort=False)
}
bins = pd.concat(tables, names=["backbone", "method"]).reset_index([0, 1])

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
size = (3.7 * len(backbones) + 0.7, 4.1)
fig, axes = plt.subplots(1, len(backbones), figsize=size, sharey=True, squeeze=False)
for ax, backbone in zip(axes[0], backbones, strict=True):
    part = bins[(bins["backbone"] == backbone) & (bins["n"] >= 10)]
    drawn = {"x": "confidence", "y": "accuracy", "hue": "method", "palette": COLOURS, "ax": ax}
    sns.lineplot(part, alpha=0.6, lw=1, **drawn)
    sns.scatterplot(part, size="n", sizes=(15, 220), legend=False, **drawn)
    ax.plot([0, 100], [0, 100], "--", color="black", lw=0.8)
    ax.set(xlabel="confidence [%]", ylabel="accuracy [%]", xlim=(20, 103), ylim=(0, 103))
    ax.set_title(f"{backbone} on {corpus}, {ece.loc[backbone, 'size'].iloc[0]} seeds")
    for text in ax.get_legend().get_texts():
        name, (mean, sd, _) = text.get_text(), ece.loc[(backbone, text.get_text())]
        text.set_text(f"{figures.METHOD_NAMES[name]}, ECE {mean:.0f} ± {sd:.0f}")
figures.save(fig, "06-reliability", profile, bins)

# %% [markdown]
# Confidence can be repaired afterwards without changing an answer. Dividing every logit by one number, chosen on
# held-out training patients, moves the dots sideways and leaves Sp, Se and Score as they are.
#
# ## Angles between classes and prototypes
#
# Claim C6 says that classes become more compact and further apart. A [prototype](../docs/glossary.md) is the direction
# of a class in the classifier. There are three angles per class:
#
# - `target`: from a cycle to the prototype of its class. Smaller is more compact.
# - `separation`: how much further away the nearest other prototype is. Below 0, a cycle is misclassified by angle. It
# grows with the spread of all angles; claim C6 is judged in units of that spread, averaged over classes (notebook 08).
# - `between`: from the class's prototype to the nearest other one. Four directions can all be 109.5° apart, no more.
#
# Cross-entropy decides by a linear head with a bias and with lengths, so that its angles describe its decisions only in
# part.

# %%
theta = geometry.angles(compared).assign(**{"class": compared["label"].map(dict(enumerate(CLASSES)))})
keys = ["backbone", "method", "seed", "run"]
shapes = theta.join(compared[keys]).groupby([*keys, "class"], sort=False).mean().reset_index()
models = {name: experiments.load_models(profile, compared, name) for name in backbones}


# %% [markdown]
# `target` and `separation` come from the predictions. `between` needs the classifiers of the finished networks.


# %%
def between_prototypes(row):
    """Angle from each class's prototype to the nearest other one, of one run."""
    prototypes = models[row.backbone][row.method, row.seed].classifier.prototypes.detach()
    unit = torch.nn.functional.normalize(prototypes, dim=1)
    angles = geometry.prototype_angles(unit)
    return pd.DataFrame({"run": row.run, "class": CLASSES, "between": angles})


# %% tags=["nbval-ignore-output"]
runs = shapes.drop_duplicates("run").itertuples()
between = pd.concat([between_prototypes(row) for row in runs])
shapes = shapes.merge(between, on=["run", "class"], validate="one_to_one").assign(corpus=corpus)
angles = ["target", "separation", "between"]
table = shapes.pivot_table(angles, ["corpus", "backbone", "class"], "method", sort=False)[angles]
table.reindex(CLASSES, level="class").round(1)

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
named = shapes.replace({"method": figures.METHOD_NAMES})
limits = {"separation": 0, "between": 109.47}
titles = ["to the target prototype", "separation", "between prototypes"]
size = (10, 2.5 * len(backbones) + 0.8)
fig, axes = plt.subplots(len(backbones), 3, figsize=size, squeeze=False, sharex=True)
for (i, j), ax in np.ndenumerate(axes):
    drawn = {"x": "class", "y": angles[j], "hue": "method", "palette": PALETTE, "order": CLASSES,
             "data": named[named["backbone"] == backbones[i]], "ax": ax}  # fmt: skip
    sns.stripplot(**drawn, dodge=True, jitter=False, alpha=0.45, size=4, legend=False)
    sns.pointplot(**drawn, dodge=0.4, errorbar=None, linestyle="none", marker="_",
                  markersize=14, legend=not (i or j))  # fmt: skip
    if angles[j] in limits:
        ax.axhline(limits[angles[j]], color="black", lw=0.8, ls="--")
    ax.set(title=f"{backbones[i]}: {titles[j]}", xlabel="", ylabel="" if j else "angle [°]")
fig.suptitle(f"Angles on {corpus}")
figures.save(fig, "06-angles", profile, shapes.drop(columns="run"))

# %% [markdown]
# One dot per seed; the bar is the mean. Dashed: as far from the target as from another prototype; and the largest angle
# that four prototypes can have to each other.
#
# ## Angles between class centroids
#
# Prototypes belong to the classifier. What the encoder made of the classes shows without it. A class's **centroid** is
# the direction of the mean of its embeddings. The table has a test cycle's angle to the centroid of its class, and each
# centroid's angle to the nearest other one; mean over seeds (at most three per backbone). Compact and apart would be
# small and large.


# %%
@torch.inference_mode()
def centroid_angles(network):
    """Per class: mean angle to its centroid, and from its centroid to the nearest other one."""
    x = torch.from_numpy(network.features(test)[0].astype("float32"))
    embeddings = torch.cat([network.encoder(part) for part in x.split(32)])
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    label = torch.tensor(test.events["label"].tolist())
    means = torch.stack([unit[label == k].mean(0) for k in range(4)])
    centroids = torch.nn.functional.normalize(means, dim=1)
    to_own = (unit * centroids[label]).sum(1).clamp(-1, 1).arccos().rad2deg()
    target = [to_own[label == k].mean().item() for k in range(4)]
    between = geometry.prototype_angles(centroids)
    return pd.DataFrame({"corpus": corpus, "class": CLASSES, "target": target, "between": between})


# %%
rows, first_seeds = [], sorted(set(compared["seed"]))[:3]
for backbone in backbones:
    for (method, seed), network in models[backbone].items():
        if seed in first_seeds:
            rows.append(centroid_angles(network).assign(backbone=backbone, method=method))

# %% tags=["nbval-ignore-output"]
angles = ["target", "between"]
keys = ["corpus", "backbone", "class"]
pd.concat(rows).pivot_table(angles, keys, "method", sort=False)[angles].round(1)

# %% [markdown]
# Where the centroids are closer to each other than the cycles are to their centroid, the classes overlap, whatever the
# margin on the training clips was.
#
# ## Scores per device
#
# Devices differ in band and gain, and not every device was equally present in training. A score that is good on one
# device only is a score of that device. For some recordings ICBHI's own list names another device than the file name
# does (notebook 01), so the table is shown both ways; where no list contradicts the names, both are the same.
# AUROC says how well a method separates the abnormal cycles of a device from the normal ones, whatever the threshold.

# %% tags=["nbval-ignore-output"]
rows = []
for name in ["device", "listed_device"]:
    keys = ["corpus", "backbone", "method", name]
    measures = evaluation.measure_table(compared, [*keys, "seed"]).groupby(keys, sort=False)
    means = measures[["n", "Sp", "Se", "Score", "AUROC"]].mean().round(1).reset_index()
    rows.append(means.rename(columns={name: "device"}).assign(named_by=name))
pd.concat(rows).set_index(["named_by", "corpus", "backbone", "method", "device"])

# %% [markdown]
# ## Scores by audio quality
#
# Claim C7: QLung is robust where the audio is poor. Here is the Score in thirds of the audio-quality score (AQS). It is
# computed on the test clips only to sort them; the model never sees it.

# %% tags=["nbval-ignore-output"]
ranks = compared["aqs"].rank(method="dense")
names = ["low", "middle", "high"]
thirds = compared.assign(AQS=pd.qcut(ranks, 3, labels=names).astype(str))
keys = ["corpus", "backbone", "method", "AQS"]
scores = evaluation.score_table(thirds, [*keys, "seed"]).groupby(keys, sort=False)
table = scores["Score"].agg(["mean", "std"]).assign(n=scores["n"].mean())
table.round(1).reset_index()

# %% [markdown]
# ## Sensitivity to degradation
#
# What happens if the audio gets worse? Thirds of AQS differ in patients, devices and classes, too. A degradation that
# is added to the same cycles differs in nothing else. There are three kinds, with five severity levels each: white
# noise below 2 kHz (its amount is the signal-to-noise ratio, SNR), clipping, and a band limit. Notebook 02 lets you
# listen to them. The finished networks of one backbone, the cheapest, predict the degraded cycles: all of them, or
# those of the first seed where the encoder was fine-tuned, because then each takes minutes. None was trained on such
# audio.


# %%
def predict_degraded(networks, severities):
    """Predictions of every network for the test cycles at every level of degradation."""
    events = test.events[["event_id", "label"]].assign(patient_id=test.of_events("patient_id"))
    first, out = next(iter(networks.values())), []
    for kind, severity, amount in degrade.levels(severities):
        features = first.features(test, (kind, amount))
        level = {"kind": kind, "severity": severity, "amount": amount}
        for (method, seed), network in networks.items():
            predicted = model.outputs(network, *features)[0].argmax(1).numpy()
            out.append(events.assign(method=method, seed=seed, **level, predicted=predicted))
    return pd.concat(out, ignore_index=True)


# %%
cheapest_first = ("mn04_frozen", "cnn", "mn04", "ast", "clap")
backbone = next(name for name in cheapest_first if name in backbones)
severities = {kind: degrade.SEVERITIES[kind] for kind in ("noise", "clipping", "lowpass")}
recorded = compared[compared["backbone"] == backbone]
if backbone not in ("mn04_frozen", "cnn"):
    recorded = recorded[recorded["seed"] == recorded["seed"].min()]
networks = {key: models[backbone][key] for key in recorded.groupby(["method", "seed"]).groups}
degraded = predict_degraded(networks, severities)
n = degraded.groupby(["method", "seed"]).ngroups
print(f"{backbone} on {corpus}: {n} networks, {len(test.events)} cycles")

# %% [markdown]
# **Checked:** on the original cycles, the networks predict what their runs recorded.

# %% tags=["check"]
keys = ["method", "seed", "event_id"]
original = degraded[degraded["severity"] == 0]
pair = original.merge(recorded, on=keys, validate="one_to_one")
assert len(pair) == len(original) == len(recorded)
assert (pair["predicted_x"] == pair["predicted_y"]).mean() > 0.999
f"on {corpus}, the networks predict what their runs recorded"


# %% [markdown]
# What does each severity level cost? As above, with intervals, and for the difference of the two methods, too.


# %%
def at_severity(part, measure):
    """A measure of both methods and of their difference, with intervals."""
    draws = evaluation.bootstrap(part, measure)
    draws["QLung - CE"] = draws["qlung"] - draws["ce"]
    return with_interval(draws)


# %%
rows = []
levels = degraded.groupby(["kind", "severity", "amount"], sort=False, dropna=False)
for (kind, severity, amount), part in levels:
    for measure in ("Score", "Sp", "Se"):
        table = at_severity(part, measure).assign(kind=kind, severity=severity, amount=amount)
        rows.append(table.assign(corpus=corpus, measure=measure))
curves = pd.concat(rows).reset_index()

# %% tags=["nbval-ignore-output"]
keys = ["corpus", "kind", "severity"]
curves.pivot_table("value", keys, ["measure", "method"], sort=False).round(1)

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
fig, axes = plt.subplots(1, 3, figsize=(10, 3.5), sharey=True)
for ax, (kind, (unit, amounts)) in zip(axes, severities.items(), strict=True):
    for method, colour in COLOURS.items():
        drawn = curves[(curves["measure"] == "Score") & (curves["method"] == method)]
        drawn = drawn[drawn["kind"].isin(["none", kind])]
        ax.plot(drawn["severity"], drawn["value"], "o-", ms=4, color=colour, label=method)
        band = drawn["low"], drawn["high"]
        ax.fill_between(drawn["severity"], *band, color=colour, alpha=0.12, lw=0)
    ax.axhline(50, color="black", lw=0.8, ls="--")
    ax.set_xticks(range(6), ["none", *(f"{amount:g}" for amount in amounts)])
    ax.set(xlabel=unit, ylabel="Score [%]", title=f"{kind}, {backbone} on {corpus}")
fig.legend(axes[0].get_lines()[:2], list(PALETTE), loc="outside lower right", ncols=2)
figures.save(fig, "06-degradation", profile, curves)

# %% [markdown]
# Bands: 95 % over patients, and over seeds where there are several; dashed: always normal. Where the Score ends at 50,
# the network no longer discriminates. Sp and Se in the table say whether everything became normal or abnormal.
#
# ## What we found
#
# - Read the intervals before the means. With this many patients, a difference of two or three points in Score (the size
#   of the effects in question) is within what another draw of patients would give. Other seeds can overturn what
#   patients can't.
# - The confusion matrices and the two-class columns show which sound is missed and which is only given the wrong name.
#   Se counts the two errors alike; a physician would not.
# - A method's Score says nothing about whether its confidence can be trusted. Nor do its angles, by themselves, say
#   that it is right more often.
#
# ## Try next
#
# - Leave out the patients who are on both sides of the split (notebook 01): does the order of the methods change?
# - Divide the logits (`log p`) by 2 and by 0.5: what happens to ECE, AUROC and Score, and why to only one of them?
# - How many seeds would a difference as large as QLung's need to reach p = 0.05 over seeds, at best?
#
# Previous: [Ablate the margins](05_ablate_margins.ipynb) ·
# Next: [Evaluate on SPRSound](07_evaluate_sprsound.ipynb) · [Glossary](../docs/glossary.md)
