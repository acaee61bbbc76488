# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,-kernelspec,-jupytext.text_representation
# ---

# %% [markdown]
# # Train
#
# **You will hold:** trained runs of cross-entropy and of QLung, the curves of their training, and the folder each run
# leaves behind.
# **Stands for:** the paper's training section. **Costs:** about a minute (demo), most of an hour once (sc, two cores).
#
# The loop is `qlung.training.fit`, one screen of plain PyTorch. A finished run is a folder and is reused; a changed
# setting, corpus or line of code makes a new one; a killed one goes on from its last epoch. `qlung sweep` runs this
# notebook once for every run of a profile: `backbone`, `method` and `seed` choose one (empty, and -1: CE and QLung, all
# seeds), `table` names another experiments.toml.

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""
backbone: str = ""
method: str = ""
seed: int = -1
table: str = ""

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from qlung.book import figures
from qlung.training import METHODS, fit, profiles

_ = torch.manual_seed(0)
figures.use_style()
train, tests = profiles.parts(profile, data, table)[0]
rows = profiles.load_profile(profile, table).rows(backbone, method, seed)
wanted = [method] if method else ["ce", "qlung"]
configs = [config for label, config in rows if label in wanted]

# %% [markdown]
# ## The methods
#
# Rows of the paper's Table 3 and two controls. They differ in two things only: which logits the classification term
# sees, and which margin the second term adds.

# %%
pd.DataFrame(
    [(figures.METHOD_NAMES[m], head, margin) for m, (head, margin) in METHODS.items()],
    columns=["method", "head of the classification term", "margin of the angular term"],
)

# %% [markdown]
# ## The settings of this profile

# %%
settings = pd.DataFrame([vars(config) for config in configs])
varied = [name for name in settings if len(settings[name].unique()) > 1 or name in ("backbone", "method", "seed")]
settings[varied].drop_duplicates().reset_index(drop=True)

# %% [markdown]
# ## Train, or reuse
#
# The test corpora are handed over only to be predicted with the last epoch's weights. (`checkpoint = "val"` in
# `experiments.toml` chooses the epoch on held-out training patients; `"best_on_test"` is what public code of this
# family does, kept to measure how much it flatters.)

# %%
runs = [fit(config, train, tests, profile) for config in configs]
len(runs)

# %% [markdown]
# ## The curves
#
# - **Loss**: QLung's is a sum of two cross-entropies with scales 37 and 15, so its height can't be compared with CE's.
# - **Training accuracy**: how much of the training set each method has learnt by heart.
# - **Angle to the own prototype** θ: what the margin acts on. With a linear head nothing pulls it down directly.
# - **Gradient norm**: mean over an epoch's steps. A large scale makes large gradients; Adam divides them out.
#
# `history.csv` has more: `loss_cls` (the first term alone), `margin_rad` (the margin used, mean over clips), θ of
# each class, the learning rate, and the spread of the gradient norm.

# %% tags=["nbval-ignore-output"]
backbones = list(dict.fromkeys(config.backbone for config in configs))
columns = {"loss": "loss", "train_accuracy": "training accuracy", "theta_deg": "θ to own prototype [°]",
           "grad_norm": "gradient norm"}  # fmt: skip
colours = {"ce": "#666666", "qlung": "#D55E00"}
fig, axes = plt.subplots(len(backbones), 4, figsize=(11, 2.5 * len(backbones)), squeeze=False, sharex="row")
for line, name in zip(axes, backbones, strict=True):
    for ax, (column, label) in zip(line, columns.items(), strict=True):
        for run in (run for run in runs if run.config.backbone == name):
            told = figures.METHOD_NAMES[run.config.method] if run.config.seed == configs[0].seed else None
            _ = ax.plot(run.history["epoch"], run.history[column], color=colours.get(run.config.method, "#0072B2"),
                        alpha=0.7, lw=1.2, label=told)  # fmt: skip
        _ = ax.set(title=f"{name}: {label}", xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
_ = axes[0, 0].legend()
histories = pd.concat([run.history.assign(**vars(run.config)) for run in runs])
if not (backbone or method or seed >= 0):  # one row of a sweep keeps its curves in its own notebook only
    figures.save(fig, "04-curves", profile, histories)

# %% [markdown]
# One line is one seed.
#
# ## What the second term asks for
#
# The margin used, the term it adds to the loss, and the angle of each class to its own prototype at the end.

# %% tags=["nbval-ignore-output"]
last = histories[histories["epoch"] == histories.groupby("backbone")["epoch"].transform("max")]
parts = last.assign(second_term=last["loss"] - last["loss_cls"]).groupby(["backbone", "method"], sort=False)
by_class = [name for name in last if name.startswith("theta_") and name != "theta_deg"]
parts[["loss_cls", "second_term", "margin_rad", *by_class]].mean().round(2).reset_index()

# %% [markdown]
# ## Is training steadier with the class margin's loss?
#
# Claim C4 speaks of stability. The spread of the gradient norm within the last epoch, relative to its mean:

# %% tags=["nbval-ignore-output"]
steady = last.assign(relative=last["grad_norm_sd"] / last["grad_norm"]).groupby(["backbone", "method"])["relative"]
steady.agg(["mean", "std", "size"]).round(2).reset_index()

# %% [markdown]
# ## What a run leaves behind
#
# `run.json` (settings, seed, code version, packages, data hashes, which weights it began with, time, memory),
# `history.csv`, `model.safetensors` and `predictions.parquet`; while it trains, its checkpoints. Scores are computed
# from the predictions alone, in the notebooks that follow.

# %%
record = json.loads((runs[0].folder / "run.json").read_text())
sorted(record), sorted(path.name for path in runs[0].folder.iterdir() if not path.name.startswith("train."))

# %% [markdown]
# **Checked:** probabilities are probabilities, every test event is predicted once, and the prediction is the class of
# the largest one: no margin and no quality score takes part.

# %% tags=["check"]
for run in runs:
    table = run.predictions()
    assert np.allclose(table[["p0", "p1", "p2", "p3"]].sum(axis=1), 1, atol=1e-4)
    for name, test in tests.items():
        assert table.loc[table["corpus"] == name, "event_id"].tolist() == test.events["event_id"].tolist()
    assert (table[["p0", "p1", "p2", "p3"]].to_numpy().argmax(1) == table["predicted"]).all()
"every run: complete predictions, proper probabilities"

# %% [markdown]
# ## On a GPU
#
# With a CUDA device `fit` uses it; nothing changes in the settings. `precision = "bf16"` in a profile's row computes
# the encoder in half precision, `torchrun` splits every batch over several GPUs, and `qlung sweep` gives each GPU a run
# of its own. docs/scaling.md has what each of these costs and saves.

# %% tags=["nbval-ignore-output"]
if torch.cuda.is_available():
    told = f"{torch.cuda.get_device_name()}: a new run trains there; the runs above used {record['device']}"
else:
    told = "no CUDA device: the runs above used the CPU; with one, this notebook would train there unchanged"
told

# %% [markdown]
# ## What we found
#
# Both methods fit the training set; the angular term keeps pushing after cross-entropy is satisfied. Whether that helps
# on patients never heard is the question of the notebooks that follow; training curves don't answer it.
#
# ## Try next
#
# - `qlung train --profile sc --data DIR --backbone cnn` trains one backbone without the notebook.
# - `qlung sweep --profile demo` trains every run of the profile in parallel; kill it, and call it again.
# - Add a method or a seed to `experiments.toml` and run this notebook again: only what is new is trained.
