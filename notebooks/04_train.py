# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,-kernelspec,-jupytext.text_representation
# ---

# %% [markdown]
# # Train the methods
#
# You train cross-entropy and QLung, write one epoch of the training loop yourself, and see what a run leaves on disk.
#
# - **What you will get:** trained runs of both methods, their training curves, and a check that an epoch written by
#   hand has the same loss as the library's.
# - **Reproduces:** the paper's training section.
# - **Runtime:** about a minute (demo), most of an hour once (sc, two cores).
#
# Previous: [Learn angular margins](03_learn_angular_margins.ipynb) ·
# Next: [Ablate the margins](05_ablate_margins.ipynb) · [Glossary](../docs/glossary.md) ·
# [Results of the committed studies](../RESULTS.md) · your own: `runs/<profile>/results.md`

# %% [markdown]
# ## The study
#
# A [profile](../docs/glossary.md) is one study of `experiments.toml`: its corpora, backbones (encoder networks),
# methods and seeds. `qlung sweep` runs this notebook once for every run of a profile. Then `backbone`, `method` and
# `seed` choose that run. Left empty (and -1), they stand for cross-entropy (CE) and QLung with all seeds. `table` names
# another file than `experiments.toml`.

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""
backbone: str = ""
method: str = ""
seed: int = -1
table: str = ""

# %% [markdown]
# The setup of every notebook: imports, then a fixed seed, the figures' style, and the corpora of the profile.

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from torch.nn import functional as F

from qlung.audio import frontends
from qlung.book import display, figures, results
from qlung.margins import angular_margin_logits, class_margin
from qlung.quality.sources import training_quality
from qlung.training import METHODS, Config, Model, fit, profiles

# %%
torch.manual_seed(0)
figures.use_style()
study = profiles.load_profile(profile, table)
train, tests = profiles.parts(profile, data, table)[0]
print(f"trained on {study.train_on}, tested on {', '.join(tests)}")

# %% [markdown]
# ## Methods
#
# What differs between two methods? Two things only: the logits of the classification term, and the margin of the
# second, angular term. The rows are those of the paper's Table 3, two controls, and six published losses.

# %%
methods = pd.DataFrame(
    [(m.title, m.head, m.margin) for m in METHODS.values()],
    columns=["method", "head of the classification term", "margin of the angular term"],
)
display.prose(methods, "methods")

# %% [markdown]
# ## Settings
#
# The runs of this notebook, and the settings in which they differ.

# %%
wanted = [method] if method else ["ce", "qlung"]
rows = study.rows(backbone, method, seed)
configs = [config for label, config in rows if label in wanted]
settings = pd.DataFrame([vars(config) for config in configs])
keys = ["backbone", "method", "seed"]
varied = keys + [c for c in settings if len(settings[c].unique()) > 1 and c not in keys]
settings[varied].drop_duplicates().reset_index(drop=True)

# %% [markdown]
# ## One epoch by hand
#
# The library's loop is `qlung.training.fit`. The same loop is short enough to write here. It uses the paper's settings,
# but one epoch, no augmentation, the small convolutional network (CNN) and the synthetic corpus. So it takes seconds
# on any profile.
#
# First the model and its data: features `x`, labels `y`, and one audio-quality score (AQS) per clip.

# %%
small = Config(method="qlung", backbone="cnn", epochs=1, augment=False)
synthetic = profiles.parts("demo")[0][0]
torch.manual_seed(small.seed)
model = Model(small).to(memory_format=torch.channels_last)  # the library's memory layout
x = torch.tensor(frontends.extract(synthetic, model.encoder.front_end), dtype=torch.float32)
y = torch.tensor(synthetic.events["label"].to_numpy())
aqs = torch.tensor(training_quality(synthetic)[0], dtype=torch.float32)
print(f"{len(y)} clips, {sum(p.numel() for p in model.parameters()):,} parameters")

# %% [markdown]
# Adam takes the steps. A cosine schedule lowers the learning rate from step to step, to a thousandth at the end.

# %%
n_steps = small.epochs * len(y.split(small.batch_size))
adam = torch.optim.Adam(model.parameters(), lr=small.lr, weight_decay=small.weight_decay)
cosine_schedule = torch.optim.lr_scheduler.CosineAnnealingLR
schedule = cosine_schedule(adam, n_steps, eta_min=small.lr / 1000)

# %% [markdown]
# The margin $m_d$ of a clip mixes the quality margin $\kappa \cdot \mathrm{AQS}$ with the margin $m_c$ of its class
# (notebook 03). The loss is cross-entropy on the logits, plus $\lambda$ times cross-entropy with that margin.


# %%
m_c = class_margin(y.bincount(), small.class_target)


def qlung_loss(batch):
    logits, cosine, _ = model(x[batch])
    m_d = small.gamma * small.kappa * aqs[batch] + (1 - small.gamma) * m_c[y[batch]]
    harder = angular_margin_logits(cosine, y[batch], m_d, small.scale_margin)
    return F.cross_entropy(logits, y[batch]) + small.lam * F.cross_entropy(harder, y[batch])


# %% [markdown]
# One epoch visits every clip once, in random order. The order comes from the seed, as in the library.

# %%
order = torch.randperm(len(y), generator=torch.Generator().manual_seed(small.seed))
losses = []
for batch in order.split(small.batch_size):
    loss = qlung_loss(batch)
    adam.zero_grad()
    loss.backward()
    adam.step()
    schedule.step()
    losses.append(loss.item())

# %% [markdown]
# **Checked:** the mean loss of this epoch is the one in the first row of the library's history, to a thousandth. (On
# one machine the two are the same number. Another number of threads, or a GPU, adds in another order.)

# %% tags=["check"]
library = fit(small, synthetic)
assert np.isclose(np.mean(losses), library.history["loss"].iloc[0], rtol=1e-3)
"on synthetic-icbhi, an epoch by hand has the library's loss"

# %% [markdown]
# ## Train, or reuse
#
# A finished run is a folder, and it is reused. A changed setting, corpus or line of code makes a new one. An
# interrupted run continues from its last epoch.
#
# The test corpora serve only for the predictions with the last epoch's weights. Two other rules can be chosen in
# `experiments.toml`. `checkpoint = "val"` chooses the epoch on held-out training patients. `"best_on_test"` chooses it
# on the test set, as public code of this kind does; it is kept to measure how large that bias is (notebook 05).

# %%
runs = [fit(config, train, tests, profile) for config in configs]
print(f"{len(runs)} runs")

# %% [markdown]
# ## Training curves
#
# - **Loss**: QLung's is a sum of two cross-entropies with scales 37 and 15. Its height can't be compared with CE's.
# - **Training accuracy**: how much of the training set a method fits.
# - **Angle to the target prototype** θ: what the margin acts on. With a linear head nothing pulls it down directly.
# - **Gradient norm**: mean over the steps of an epoch. A large scale makes large gradients; Adam divides them out.
#
# `history.csv` has more columns: `loss_cls` (the first term alone), `margin_rad` (the margin used, mean over clips), θ
# of each class, the learning rate, and the spread of the gradient norm.

# %%
histories = pd.concat([run.history.assign(**vars(run.config)) for run in runs])
backbones = list(histories["backbone"].unique())
quantities = {
    "loss": "loss",
    "train_accuracy": "training accuracy",
    "theta_deg": "θ to the target prototype [°]",
    "grad_norm": "gradient norm",
}

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true}
named = histories.replace({"method": figures.METHOD_NAMES})
palette = {"CE": figures.GREY, "QLung": "#D55E00"}
style = {"hue": "method", "units": "seed", "estimator": None, "alpha": 0.7, "lw": 1.2,
         "palette": {m: palette.get(m, "#0072B2") for m in named["method"]}}  # fmt: skip
size = (11, 2.5 * len(backbones) + 0.7)
fig, axes = plt.subplots(len(backbones), 4, figsize=size, squeeze=False, sharex="row")
for (i, j), ax in np.ndenumerate(axes):
    column, part = list(quantities)[j], named[named["backbone"] == backbones[i]]
    sns.lineplot(part, x="epoch", y=column, ax=ax, legend=not (i or j), **style)
    ax.set(title=quantities[column], ylabel=backbones[i] if not j else "")
    ax.xaxis.get_major_locator().set_params(integer=True)
named_lines = axes[0, 0].get_legend_handles_labels()
axes[0, 0].get_legend().remove()
fig.legend(*named_lines, loc="outside lower center", ncols=7)
fig.suptitle(f"Training on {study.train_on}")
if not (backbone or method or seed >= 0):  # a sweep's single run keeps its curves in its notebook
    figures.save(fig, "04-curves", profile, histories)

# %% [markdown]
# One line per seed.
#
# ## Margin and angles at the end of training
#
# The last epoch, mean over seeds: the margin used, the term it adds to the loss, and the angle of each class to its
# target prototype [°].

# %% tags=["nbval-ignore-output"]
last_epoch = histories.groupby("backbone")["epoch"].transform("max")
last = histories[histories["epoch"] == last_epoch].assign(corpus=study.train_on)
last["second_term"] = last["loss"] - last["loss_cls"]
angles = [name for name in last if name.startswith("theta_") and name != "theta_deg"]
groups = last.groupby(["corpus", "backbone", "method"], sort=False)
groups[["loss_cls", "second_term", "margin_rad", *angles]].mean().round(2).reset_index()

# %% [markdown]
# ## Stability of training
#
# Does the class margin steady training, as [claim C4](../claims.toml) has it? Here is the spread of the gradient norm
# within the last epoch, relative to its mean. Notebook 08 compares the two methods that differ in the class margin.

# %% tags=["nbval-ignore-output"]
last["relative"] = last["grad_norm_sd"] / last["grad_norm"]
spread = last.groupby(["corpus", "backbone", "method"])["relative"].agg(["mean", "std", "size"])
spread.round(2).reset_index()

# %% [markdown]
# ## Choosing a recipe
#
# A margin can only be judged on a network that is better than always answering "normal". Learning rate, augmentation,
# batch normalisation: such choices move the Score more than the margin does. They are made first, on **development
# data** alone, and then kept for every method. The profile `tune` has three sets for it:
#
# - **patients**: each third of ICBHI's training patients, by networks trained on the other two thirds;
# - **devices**: each recording device of the training part, by networks that heard no clip of it;
# - **kauh**: the development half of KAUH, another hospital and another stethoscope, by the networks of "patients".
#
# A setting is ranked by the mean of its Score and its AUROC over the three sets (AUROC: each class against the rest,
# averaged). AUROC alone would hide a badly drawn line between normal and abnormal; the Score alone would hide how well
# the clips are ordered. The code that makes the sets can't open a test split, and a test of this repository checks it.
#
# Settings are changed one at a time, for CE and for QLung alike: a recipe tuned for one of them would favour it. What
# helped both is kept, and the next settings are changed from there. There is one seed per row, so a small difference
# means little. Rows train for four epochs, on windows of 4 s, unless they say something else. This is cheaper than what
# the paper does, and one of the choices to be judged.

# %%
ranking = results.evidence("tune", "ranking")
ranking["of"] = ranking["method"].str.split().str[0]
ranking["setting"] = ranking["method"].str.partition(" ")[2].replace("", "none changed")
sets = [name for name in ranking if name.endswith((" Score", " macro-AUROC"))]
tuned = ranking[ranking["backbone"] == "mn04"].reset_index(drop=True)
display.readable(tuned[["of", "setting", *sets, "mean"]], 1)

# %% [markdown]
# What is a choice worth? Drawn is the mean minus that of the row without the last named setting.

# %% jupyter={"source_hidden": true}
fig, axes = plt.subplots(2, 1, figsize=(10, 0.24 * len(tuned) + 1.4), sharex=True)
for ax, (name, part) in zip(axes, tuned[tuned["method"] != tuned["of"]].groupby("of"), strict=True):
    figures.intervals(ax, part, part["setting"])
    ax.axvline(0, color="black", lw=0.8)
    ax.set_title(figures.METHOD_NAMES[name])
axes[1].set_xlabel("difference of the mean [points], 95 % over patients")
figures.save(fig, "04-recipe", profile, tuned)

# %% [markdown]
# On each set, by how much does a setting move both measures? The best and the worst change of each.

# %%
rows = tuned.set_index("method")
gains = (rows[sets] - rows.loc[rows["against"], sets].to_numpy())[rows["against"] != rows.index]
pairs = {"best": gains.idxmax(), "gain": gains.max(), "worst": gains.idxmin(), "loss": gains.min()}
pd.concat(pairs, axis=1).round(1).rename_axis("set and measure").reset_index()

# %% [markdown]
# **Checked:** with the pretrained statistics of batch norm both methods are better on every set, in both measures. In
# training, batch norm uses the statistics of 16 clips; to answer, it uses running ones, which move by a hundredth per
# step. After 170 steps a fifth of them is still AudioSet's.

# %% tags=["check"]
frozen = gains.loc[[f"{name} batch_norm=frozen" for name in ("ce", "qlung")]]
assert (frozen > 0).all(axis=None)
frozen.round(1).to_dict("index")

# %% [markdown]
# The same for the frozen encoder, whose small network on top is all that is trained:

# %%
heads = ranking[ranking["backbone"] == "mn04_frozen"]
display.readable(heads[["of", "setting", *sets, "mean"]], 1)

# %% [markdown]
# Which settings are taken? Rows within half a point of the best are ties, and of them the one with the fewest changed
# settings is taken. For the fine-tuned encoder CE and QLung end with different settings: the masks of SpecAugment help
# CE, and QLung without them. So the study `sc` has CE's recipe and `sc-unmasked` QLung's, and every comparison can be
# read under both.
#
# **Checked:** the studies are trained with the settings that this rule takes.

# %% tags=["check"]
studies = {("mn04", "ce"): "sc", ("mn04", "qlung"): "sc-unmasked",
           ("mn04_frozen", "ce"): "breadth", ("mn04_frozen", "qlung"): "breadth"}  # fmt: skip
ranking["changes"] = ranking["method"].str.count(" ")
taken = {}
for (name, of), study_name in studies.items():
    own = ranking[(ranking["backbone"] == name) & (ranking["of"] == of)]
    tied = own[own["mean"] > own["mean"].max() - 0.5]
    taken[study_name, of] = tied.sort_values(["changes", "mean"], ascending=[True, False])["method"].iloc[0]
    candidates = dict(profiles.load_profile("tune").rows(name))
    trained = dict(profiles.load_profile(study_name).rows(name, seed=0))
    assert candidates[taken[study_name, of]] == trained[of]
taken

# %% [markdown]
# ## What a run leaves behind
#
# A run's folder is `runs/<profile>/<backbone>-<method>/<key>`. The key is a hash of settings, data and code.
#
# - `run.json`: settings, seed, code version, packages, hashes of the data, initial weights, time and memory.
# - `history.csv`: the curves. `model.safetensors`: the weights. `predictions.parquet`: one row per test event.
#
# Scores are computed from the predictions alone, in the notebooks that follow.

# %%
record = json.loads((runs[0].folder / "run.json").read_text(encoding="utf-8"))
files = [path.name for path in runs[0].folder.iterdir() if not path.name.startswith("train.")]
sorted(record), sorted(files)

# %% [markdown]
# **Checked:** probabilities add up to 1, and every test event (of KAUH: recording) is predicted once. The prediction is
# the class of the largest probability: neither a margin nor a quality score takes part.

# %% tags=["check"]
for run in runs:
    predictions = run.predictions()
    p = predictions[["p0", "p1", "p2", "p3"]].to_numpy()
    assert np.allclose(p.sum(axis=1), 1, atol=1e-4)
    assert (p.argmax(1) == predictions["predicted"]).all()
    for name, test in tests.items():
        answered = predictions.loc[predictions["corpus"] == name, "event_id"]
        asked = test.events["recording_id" if test.unit == "recording" else "event_id"].unique()
        assert answered.tolist() == asked.tolist()
f"every run: complete predictions on {' and '.join(tests)}, proper probabilities"

# %% [markdown]
# ## Training on a GPU
#
# With a CUDA device `fit` uses it; nothing changes in the settings. `precision = "bf16"` in a profile computes the
# encoder in half precision. `torchrun` splits every batch over several GPUs, and `qlung sweep` gives each GPU a run of
# its own. [docs/scaling.md](../docs/scaling.md) says what each of these costs and saves.

# %% tags=["nbval-ignore-output"]
if torch.cuda.is_available():
    gpu = torch.cuda.get_device_name()
    message = f"{gpu}: a new run trains there; the runs above used {record['device']}"
else:
    message = "no CUDA device: the runs above used the CPU"
message

# %% [markdown]
# ## What we found
#
# - A dozen lines of plain PyTorch train QLung, and their loss is the library's.
# - Both methods fit the training set. The angular term keeps pushing after cross-entropy is satisfied.
# - Whether that helps on new patients is the question of the notebooks that follow. Training curves don't answer it.
#
# ## Try next
#
# - Leave the angular term out of the hand-written loss. By how much does the first epoch's loss fall?
# - `qlung train --profile sc --data DIR --method ce` trains one method without the notebook.
# - `qlung sweep --profile demo` trains every run of the profile in parallel. Stop it, and call it again.
# - Add a method or a seed to `experiments.toml` and run this notebook again: only what is new is trained.
#
# Previous: [Learn angular margins](03_learn_angular_margins.ipynb) ·
# Next: [Ablate the margins](05_ablate_margins.ipynb) · [Glossary](../docs/glossary.md)
