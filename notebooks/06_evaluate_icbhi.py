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
# **You will hold:** every method's Sp, Se and Score with intervals over patients and a dozen other measures beside
# them, a paired test of each against cross-entropy, what is confused with what, whether the networks know when they
# are wrong, the angles between classes, how much of the score hangs on the device, and how it falls with noise.
# **Stands for:** Table 1 and claims C6 and C7. **Costs:** a minute once the runs of notebook 05 are there (demo); on sc
# a few more, once, to hear the test clips damaged.
#
# Sp is the share of normal cycles called normal. Se is the share of abnormal cycles given their **exact** class: a
# wheeze called crackle is as wrong as one called normal. Score is their mean, so that always answering "normal" is 50.

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from qlung import evaluation
from qlung.audio import degrade
from qlung.book import figures, results
from qlung.corpora import CLASSES
from qlung.evaluation import geometry
from qlung.training import experiments, model, profiles

_ = torch.manual_seed(0)
figures.use_style()
home = profiles.load_profile(profile).names[0]  # the corpus trained on
predictions = experiments.load_predictions(profile, data).query("corpus == @home")
test = profiles.open_corpora(profile, data)[home].select("test")
compared = predictions[predictions["method"].isin(["ce", "qlung"])]
COLOURS = {"ce": figures.GREY, "qlung": "#D55E00"}

# %% [markdown]
# ## The score, by hand
#
# **Checked:** ten cycles whose confusion matrix can be counted on fingers. Three of four normals are right; of six
# abnormal ones two got their exact class, three more were called abnormal with the wrong class.

# %% tags=["check"]
truth = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
said = [0, 0, 0, 2, 1, 3, 0, 2, 1, 1]
by_hand = evaluation.icbhi_score(truth, said)
assert np.allclose(by_hand, (75, 100 * 2 / 6, (75 + 100 / 3) / 2))
assert evaluation.icbhi_score(truth, [0] * 10).score == 50
by_hand

# %% [markdown]
# Asked only whether a cycle is abnormal, five of the six abnormal ones are right: "Se 2". The Score of SPRSound's own
# challenges ("BioCAS") is the mean of Score and of the harmonic mean of Sp and Se, and punishes a lopsided answer:
# always normal gets 25 there.

# %% tags=["check"]
every = evaluation.measures(truth, said)
assert np.allclose([every["Se 2"], every["macro-F1"]], [100 * 5 / 6, 100 * (3 / 4 + 1 / 3 + 1 / 2 + 0) / 4])
assert evaluation.measures(truth, [0] * 10)["BioCAS"] == 25
pd.Series(every).round(1).to_dict()

# %% [markdown]
# ## Scores, beside the paper's Table 1
#
# The paper's rows are for the full ICBHI set with AST; this profile's numbers are **not comparable** with them, only
# its own rows with each other.

# %% tags=["nbval-ignore-output"]
results.pretty(evaluation.scores(compared)[1])

# %%
paper = pd.DataFrame(
    [("CE fine-tuning, AST", 77.14, 41.97, 59.55), ("Patch-Mix CL, AST", 81.66, 43.07, 62.37),
     ("SG-SCL, AST", 79.87, 43.55, 61.71), ("Audio-CLAP", 80.85, 44.67, 62.56), ("BTS", 81.40, 45.67, 63.54),
     ("QLung AST", 81.90, 42.12, 62.01), ("QLung CLAP", 81.98, 44.81, 63.39)],
    columns=["paper, Table 1", "Sp", "Se", "Score"],
)  # fmt: skip
paper

# %% [markdown]
# ## Every method, every measure
#
# Means over seeds, in percent. "Se 2" and "Score 2": abnormal or not. Crackle, wheeze, both: recall of that class.
# ECE: how far confidence is from accuracy (0 is best). AUROC: abnormal against normal at every threshold, so that it
# doesn't depend on where a method happens to put its threshold; 50 is chance. Last, the two that listen to nothing.

# %% tags=["nbval-ignore-output"]
SHOWN = ["Sp", "Se", "Score", "Se 2", "Score 2", "BioCAS", *CLASSES[1:], "macro-F1", "ECE", "AUROC"]
means = evaluation.every_measure(predictions)
means["method"] = means["method"].map(results.shown)
means[["backbone", "method", *SHOWN]].round(1)

# %% [markdown]
# The best of a column is rarely the best of the next one. A Score can rise because fewer abnormal cycles are missed or
# because more of them are named well, and the two-class columns tell the one from the other.
#
# ## How sure?
#
# A test set of few patients carries far fewer independent facts than it has cycles. Intervals resample patients, and
# seeds.

# %% tags=["nbval-ignore-output"]
rows = []
for (backbone, method), part in compared.groupby(["backbone", "method"], sort=False):
    for name in ("Sp", "Se", "Score"):
        draws = evaluation.bootstrap(part, name)[method]
        low, high = draws.iloc[1:].quantile([0.025, 0.975])
        rows.append((backbone, method, name, draws.iloc[0], low, high))
intervals = pd.DataFrame(rows, columns=["backbone", "method", "measure", "value", "low", "high"])
print(f"{compared['patient_id'].nunique()} patients, {compared['event_id'].nunique()} cycles")
intervals.round(1)

# %% tags=["nbval-ignore-output"]
fig, axes = plt.subplots(1, 3, figsize=(10, 0.45 * len(intervals) / 3 + 1.3), sharey=True)
for ax, (name, part) in zip(axes, intervals.groupby("measure", sort=False), strict=True):
    for y, row in enumerate(part.itertuples()):
        _ = ax.plot([row.low, row.high], [y, y], color=COLOURS[row.method], lw=2)
        _ = ax.plot(row.value, y, "o", color=COLOURS[row.method])
    _ = ax.set(xlabel=f"{name} [%]")
_ = axes[2].axvline(50, color="black", lw=0.8, ls="--")
labels = [f"{r.backbone}, {figures.METHOD_NAMES[r.method]}" for r in part.itertuples()]
_ = axes[0].set_yticks(range(len(part)), labels)
_ = axes[0].set_ylim(len(part) - 0.5, -0.5)
figures.save(fig, "06-intervals", profile, intervals)

# %% [markdown]
# Dashed: always normal.
#
# ## Every method against cross-entropy
#
# The difference in Score with its 95 % interval over patients and seeds, and two p values by swapping the two methods'
# answers: **patient by patient** asks whether the difference between *these networks* could be luck of the patients
# drawn, **seed by seed** whether the difference on *these patients* could be luck of the seeds. A method is better only
# if both say so. That is why the last column takes the larger of the two, multiplied up by Holm's rule for as many
# comparisons as there are rows: of twenty methods that are no better one reaches p = 0.05. Three seeds can't give less
# than p = 0.25, ten not less than 0.002. A variant stands against its own method.

# %% tags=["nbval-ignore-output"]
against = evaluation.contrasts(predictions).drop(columns="corpus")
against["row"] = against["row"].map(results.shown)
against.round({"difference": 2, "low": 2, "high": 2, "p patients": 4, "p seeds": 4, "p Holm": 3})

# %% [markdown]
# An interval that leaves out 0 beside a large p over seeds says that the patients agree about networks of which the
# next seeds may think otherwise.
#
# **Checked:** a method against itself gives p = 1; one that is right wherever cross-entropy was wrong gives less than
# one in a thousand; and Holm's rule on three p values, by hand: the smallest times 3, the next times 2, never
# decreasing.

# %% tags=["check"]
plain = compared[(compared["method"] == "ce") & (compared["backbone"] == compared["backbone"].iloc[0])]
twin, perfect = plain.assign(method="twin"), plain.assign(method="perfect", predicted=plain["label"])
assert evaluation.permutation_p(pd.concat([plain, twin]), "twin", "ce") == 1
assert evaluation.permutation_p(pd.concat([plain, perfect]), "perfect", "ce") < 0.001
assert np.allclose(evaluation.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
"the tests know nothing from something"

# %% [markdown]
# ## What is confused with what
#
# Rows are the truth; numbers are shares of a row in percent, summed over seeds.

# %% tags=["nbval-ignore-output"]
backbones = list(compared["backbone"].unique())
fig, axes = plt.subplots(len(backbones), 2, figsize=(7, 3.1 * len(backbones)), squeeze=False)
counts = []
for line, backbone in zip(axes, backbones, strict=True):
    for ax, method in zip(line, ("ce", "qlung"), strict=True):
        part = compared[(compared["backbone"] == backbone) & (compared["method"] == method)]
        counted = evaluation.confusion(part["label"], part["predicted"])
        table = pd.DataFrame(counted, CLASSES, CLASSES).rename_axis("true")
        counts.append(table.assign(backbone=backbone, method=method))
        share = 100 * counted / counted.sum(1, keepdims=True)
        _ = ax.imshow(share, vmin=0, vmax=100, cmap="Blues")
        _ = [ax.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center",
                     color="white" if share[i, j] > 60 else "black") for i in range(4) for j in range(4)]  # fmt: skip
        _ = ax.set_xticks(range(4), CLASSES), ax.set_yticks(range(4), CLASSES)
        _ = ax.set(title=f"{backbone}, {figures.METHOD_NAMES[method]}", xlabel="predicted", ylabel="true")
        ax.grid(visible=False)
figures.save(fig, "06-confusion", profile, pd.concat(counts).reset_index())

# %% [markdown]
# ## Does it know when it is wrong?
#
# A network that says 90 % should be right nine times of ten. Each dot holds the cycles of one band of confidence (all
# seeds; none where there are fewer than ten), its area their number; below the dashed line a network is surer than it
# is right. The linear head of cross-entropy learns its own scale; the angular one multiplies cosines by $s_a = 37$.

# %% tags=["nbval-ignore-output"]
per_seed = evaluation.measure_table(compared, ["backbone", "method", "seed"])
fig, axes = plt.subplots(1, len(backbones), figsize=(3.7 * len(backbones) + 0.5, 3.9), sharey=True, squeeze=False)
drawn = []
for ax, backbone in zip(axes[0], backbones, strict=True):
    _ = ax.plot([0, 100], [0, 100], "--", color="black", lw=0.8)
    for method, colour in COLOURS.items():
        own = compared[(compared["backbone"] == backbone) & (compared["method"] == method)]
        bins = evaluation.reliability(own["label"], own[["p0", "p1", "p2", "p3"]])
        ece = per_seed[(per_seed["backbone"] == backbone) & (per_seed["method"] == method)]["ECE"]
        label = f"{figures.METHOD_NAMES[method]}, ECE {ece.mean():.0f} ± {ece.std():.0f}"
        drawn.append(bins.assign(backbone=backbone, method=method))
        bins = bins[bins["n"] >= 10]
        _ = ax.plot(bins["confidence"], bins["accuracy"], color=colour, lw=1, alpha=0.6)
        _ = ax.scatter(bins["confidence"], bins["accuracy"], 400 * bins["n"] / len(own), color=colour, label=label)
    _ = ax.set(xlabel="confidence [%]", xlim=(20, 103), ylim=(0, 103), title=f"{backbone} ({ece.size} seeds)")
    for handle in ax.legend(loc="lower right").legend_handles:
        _ = handle.set_sizes([30])
_ = axes[0, 0].set_ylabel("of these, right [%]")
figures.save(fig, "06-reliability", profile, pd.concat(drawn))

# %% [markdown]
# Confidence can be repaired afterwards without touching an answer: dividing every logit by one number, chosen on held
# out training patients, moves the dots sideways and leaves Sp, Se and Score as they are.
#
# ## Angles, class by class
#
# Claim C6 says classes become more compact and further apart. Three angles for every class: a cycle's angle to its own
# prototype (smaller is more compact), how much further away the nearest other prototype is (below 0: mostly wrong), and
# from prototype to nearest prototype. Four directions can be 109.5° from each other and no more. Cross-entropy decides
# by a linear head with a bias and lengths, so that its angles tell only part of how it decides.

# %% tags=["nbval-ignore-output"]
shapes = geometry.by_class(compared, ["backbone", "method", "seed", "run"])
networks = {name: experiments.load_models(profile, compared, name) for name in backbones}
between = []
for (backbone, method, seed, run), _ in shapes.groupby(["backbone", "method", "seed", "run"], sort=False):
    prototypes = networks[backbone][method, seed].classifier.prototypes.detach()
    nearest = geometry.prototype_angles(torch.nn.functional.normalize(prototypes, dim=1))
    between += [{"run": run, "class": name, "between": angle} for name, angle in zip(CLASSES, nearest, strict=True)]
shapes = shapes.merge(pd.DataFrame(between), on=["run", "class"], validate="one_to_one")
angles = ["own", "separation", "between"]
table = shapes.pivot_table(angles, ["backbone", "class"], "method", sort=False)[angles]
table.reindex(CLASSES, level="class").round(1)

# %% tags=["nbval-ignore-output"]
titles = {"own": "to the own prototype", "separation": "nearest other minus own", "between": "between prototypes"}
fig, axes = plt.subplots(len(backbones), 3, figsize=(10, 2.5 * len(backbones) + 0.5), squeeze=False, sharex=True)
for line, backbone in zip(axes, backbones, strict=True):
    for ax, (angle, title) in zip(line, titles.items(), strict=True):
        for shift, (method, colour) in zip((-0.15, 0.15), COLOURS.items(), strict=True):
            own = shapes[(shapes["backbone"] == backbone) & (shapes["method"] == method)]
            x = own["class"].map(CLASSES.index) + shift
            _ = ax.plot(x, own[angle], "o", ms=4, mec="none", alpha=0.45, color=colour)
            mean = own.assign(x=x).groupby("x")[angle].mean()
            _ = ax.plot(mean.index, mean, "_", ms=15, mew=2, color=colour, label=figures.METHOD_NAMES[method])
        level = {"separation": 0, "between": 109.47}.get(angle)
        _ = ax.axhline(level, color="black", lw=0.8, ls="--") if level is not None else None
        _ = ax.set(title=f"{backbone}: {title}"), ax.set_xticks(range(4), CLASSES)
    _ = line[0].set_ylabel("angle [°]")
_ = fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
figures.save(fig, "06-angles", profile, shapes.drop(columns="run"))

# %% [markdown]
# A dot is a seed, a bar the mean. Dashed: as far from one's own as from another; and the furthest that four prototypes
# can be apart.
#
# Prototypes belong to the classifier. What the encoder made of the classes shows without it: a class's **centroid** is
# the direction of the mean of its embeddings. Mean over seeds (at most three a backbone) of a test cycle's angle to its
# class's centroid, and of each centroid's angle to the nearest other one. Compact and apart would be small and large.

# %% tags=["nbval-ignore-output"]
rows = []
for backbone in backbones:
    for (method, seed), network in networks[backbone].items():
        if seed < 3:
            found = geometry.centroid_angles(model.embeddings(network, test), test.events["label"].to_numpy())
            rows.append(found.assign(backbone=backbone, method=method, seed=seed))
centroids = pd.concat(rows)
angles = ["own", "between"]
centroids.pivot_table(angles, ["backbone", "class"], "method", sort=False)[angles].round(1)

# %% [markdown]
# An angle between centroids that is smaller than the cycles' own angles to them says that classes overlap, whatever the
# margin on the training clips was.
#
# ## Device by device
#
# Devices differ in band and gain, and not every device was in the training part equally. A score that is good on one
# device only is a score of that device.

# %% tags=["nbval-ignore-output"]
device = evaluation.score_table(compared, ["backbone", "method", "device", "seed"])
device = device.groupby(["backbone", "method", "device"], sort=False)[["n", "Sp", "Se", "Score"]].mean()
device.round(1).reset_index()

# %% [markdown]
# ## Poor audio, good audio
#
# Claim C7: QLung is robust where the audio is poor. Score in thirds of AQS (computed on the test clips only to sort
# them; the model never sees it).

# %% tags=["nbval-ignore-output"]
thirds = compared.assign(third=pd.qcut(compared["aqs"].rank(method="dense"), 3, labels=["low", "middle", "high"]))
by_quality = evaluation.score_table(thirds.astype({"third": str}), ["backbone", "method", "third", "seed"])
by_quality = by_quality.groupby(["backbone", "method", "third"], sort=False)[["n", "Score"]].agg(["mean", "std"])
by_quality[[("n", "mean"), ("Score", "mean"), ("Score", "std")]].round(1).reset_index()

# %% [markdown]
# ## And if the audio gets worse?
#
# Thirds of AQS differ in patients, devices and classes, too. Damage that is added to the same cycles differs in nothing
# else: white noise below 2 kHz, clipping, and a band limit, in five steps each (notebook 02 hears them). The finished
# networks of one backbone, the cheapest, are asked; none of them ever heard such damage.

# %%
backbone = next(name for name in ("mn04_frozen", "cnn", "mn04", "ast", "clap") if name in set(backbones))
ladders = {kind: degrade.SEVERITIES[kind] for kind in ("noise", "clipping", "lowpass")}
heard = model.predict_degraded(networks[backbone], test, ladders)
print(f"{backbone}: {heard.groupby(['method', 'seed']).ngroups} networks, {len(test.events)} cycles")

# %% [markdown]
# **Checked:** undamaged, they answer as their runs say.

# %% tags=["check"]
keys = ["method", "seed", "event_id"]
plain = heard[heard["step"] == 0].merge(compared[compared["backbone"] == backbone], on=keys, validate="one_to_one")
assert len(plain) == len(heard[heard["step"] == 0])
assert (plain["predicted_x"] == plain["predicted_y"]).mean() > 0.999
"the networks answer as their runs say"

# %% tags=["nbval-ignore-output"]
rows = []
for (kind, step, amount), part in heard.groupby(["kind", "step", "amount"], sort=False, dropna=False):
    for name in ("Score", "Sp", "Se"):
        draws = evaluation.bootstrap(part, name)
        draws["QLung - CE"] = draws["qlung"] - draws["ce"]
        low, high = draws.iloc[1:].quantile([0.025, 0.975]).to_numpy()
        rows += [(kind, step, amount, name, m, draws[m].iloc[0], low[k], high[k]) for k, m in enumerate(draws)]
curves = pd.DataFrame(rows, columns=["kind", "step", "amount", "measure", "method", "value", "low", "high"])
curves.pivot_table("value", ["kind", "step"], ["measure", "method"], sort=False).round(1)

# %% tags=["nbval-ignore-output"]
fig, axes = plt.subplots(1, 3, figsize=(10, 3.3), sharey=True)
scores = curves[curves["measure"] == "Score"]
for ax, (kind, (unit, amounts)) in zip(axes, ladders.items(), strict=True):
    for method, colour in COLOURS.items():
        own = scores[(scores["method"] == method) & scores["kind"].isin(["none", kind])]
        _ = ax.plot(own["step"], own["value"], "o-", ms=4, color=colour, label=figures.METHOD_NAMES[method])
        _ = ax.fill_between(own["step"], own["low"], own["high"], color=colour, alpha=0.12, lw=0)
    _ = ax.axhline(50, color="black", lw=0.8, ls="--")
    _ = ax.set_xticks(range(6), ["none", *(f"{amount:g}" for amount in amounts)])
    _ = ax.set(xlabel=unit, title=kind)
_ = axes[0].set_ylabel("Score [%]")
_ = fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
figures.save(fig, "06-damage", profile, curves)

# %% [markdown]
# Bands: 95 % over patients and seeds; dashed: always normal. A Score that ends there has stopped listening: Sp and Se
# in the table tell whether everything became normal or everything abnormal.
#
# ## What we found
#
# Read the intervals before the means: with this many patients a difference of two or three points in Score, the size
# of the effects in question, is within what another draw of patients would give, and what patients can't overturn
# other seeds can. The confusion matrices and the two-class columns tell which sound is missed and which is only
# misnamed, two errors that Se counts alike and a physician would not. A method's Score says nothing about whether its
# confidence can be trusted, nor do its angles say by themselves that it is right more often.
#
# ## Try next
#
# - Leave out the patients who are on both sides of the split (notebook 01): does the order of the methods change?
# - Divide the logits (`log p`) by 2 and by 0.5: what happens to ECE, AUROC and Score, and why to only one of them?
# - How many seeds would a difference as large as QLung's need to reach p = 0.05 over seeds, at best?
