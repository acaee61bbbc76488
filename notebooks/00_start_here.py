# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,-kernelspec,-jupytext.text_representation
# ---

# %% [markdown]
# # Start here
#
# This book is a companion to *Quality Adaptive Angular Margin Learning for Respiratory Sound
# Classification* (Kim, Koo, Toikkanen, Kim; [arXiv 2606.11915](https://arxiv.org/abs/2606.11915),
# Interspeech 2026). It explains the paper's method, QLung, runs it again, and measures which of
# the paper's claims hold.
#
# **What you will get:** what was found, a map of the book, the paper on one page with its numbers
# computed again, and the list of everything that the paper leaves open.
#
# **Reproduces:** the paper's introduction and method section.
#
# **Runtime:** seconds on every profile.
#
# [Next: Curate the data](01_curate_data.ipynb) · [Glossary](../docs/glossary.md) ·
# [All results](../RESULTS.md)
#
# ## What this book found
#
# The task is to put a short recording of breathing, a **clip**, into one of four classes. A
# **crackle** is a short burst of sound, a **wheeze** is a long tone; *normal* has neither, *both*
# has both. **ICBHI** is the data set of the 2017 International Conference on Biomedical and
# Health Informatics. **SPRSound** is a data set of children's recordings from Shanghai (Shanghai
# Jiao Tong University, SJTU).
#
# QLung trains such a classifier with a larger margin for clips of good audio quality and for rare
# classes. The paper reports a better Score than cross-entropy (CE), the usual loss.
# **Specificity** (Sp) is the share of normal clips that are called normal. **Sensitivity** (Se)
# is the share of abnormal clips that get exactly their class. **Score** is the mean of the two,
# from 0 to 100; always answering "normal" gives 50.
#
# **On real recordings, no gain of QLung over cross-entropy was measured**, neither on the corpus that
# it was trained on nor on another one. Trained on SPRSound, where the networks work, its gain is surely
# less than half of the paper's. Trained on ICBHI, the interval also holds the paper's gain. This does
# not refute the paper: the study here uses smaller networks and only the single-channel part of ICBHI.
# The first figure of this notebook shows it; [notebook 08](08_judge_claims.ipynb) gives a verdict on
# each claim.
#
# ## Parameters
#
# Every notebook has at least these two. `profile` names the study: `demo` (synthetic recordings;
# takes minutes and needs no internet), `sc` (ICBHI's **s**ingle-**c**hannel part, and SPRSound) or
# `paper` (all recordings and the paper's large networks). `data` is the folder that holds `icbhi/`
# and `sprsound/`. `make reproduce PROFILE=sc DATA=DIR` runs all notebooks.

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""

# %% jupyter={"source_hidden": true}
import importlib.metadata
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from qlung import margins, paths
from qlung.book import figures, results
from qlung.evaluation import claims
from qlung.training import profiles

# %% jupyter={"source_hidden": true}
torch.manual_seed(0)
figures.use_style()

# %% [markdown]
# ## QLung against cross-entropy on real recordings
#
# The predictions for real recordings are stored in this repository. The numbers below are
# computed from them, whichever `profile` you choose. The networks were trained on ICBHI (its
# single-channel part) or on SPRSound. Claim C1 is about the corpus that they were trained on, claim
# C2 about the other. `difference` is the Score of QLung minus that of cross-entropy. `low` and
# `high` are the ends of its 95 % interval; `patients` is their effective number, which is smaller
# than their number where a few hold most of the clips. `shows` is *supported* if the interval lies
# above 0, *contradicted* if it lies below 0, *negligible* if the difference is surely smaller than
# half of the paper's (90 % interval), and else *undecided*.

# %%
studies = {
    "icbhi": claims.primary(results.headline()),
    "sprsound": claims.primary(results.evidence("sprsound"), "sprsound"),
}
gains = pd.concat(studies, names=["trained on"]).reset_index(level=0)
gains = gains.query("claim in ('C1', 'C2')").reset_index(drop=True)
columns = ["trained on", "corpus", "backbone", "difference", "low", "high", "seeds", "patients", "shows"]
gains[columns].round(2)

# %% [markdown]
# A dot is the difference in Score between QLung and cross-entropy, the mean over training seeds.
# Its line is the 95 % interval over patients and seeds. `mn04` is a small network pretrained on
# AudioSet, a large collection of everyday sounds; it is fine-tuned, or frozen with a small trained
# classifier on top (`mn04_frozen`). The diamond is the paper's gain on all of ICBHI, with the larger
# Audio Spectrogram Transformer (AST).

# %% jupyter={"source_hidden": true}
published = next(claim["effect"] for claim in claims.load() if claim["id"] == "C1")
paper = "paper (AST, all of ICBHI)"
gains[paper] = np.where(gains["claim"] == "C1", published, np.nan)
labels = gains["trained on"] + " → " + gains["corpus"] + ", " + gains["backbone"]
labels += " (" + gains["seeds"].astype(str) + " seeds)"
fig, ax = plt.subplots(figsize=(8, 3.6))
figures.intervals(ax, gains, labels, reference=paper)
ax.axvline(0, color="black", lw=0.8)
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
_ = ax.set(xlabel="QLung minus cross-entropy [Score]", title="Gain in Score, real recordings")

# %% [markdown]
# **Checked:** no interval lies above 0. One lies below it: fine-tuned on ICBHI, QLung is worse on
# SPRSound. (Of eight intervals, and corrected for all comparisons that were fixed beforehand it is no
# longer significant: notebook 08.) Of the four for C1, only that of the `mn04` that was fine-tuned on
# ICBHI contains the paper's gain. The other three lie below it.

# %% tags=["check"]
assert (gains["low"] < 0).all()
worse = gains[gains["high"] < 0]
assert (worse["trained on"] + " " + worse["claim"] + " " + worse["backbone"]).tolist() == ["icbhi C2 mn04"]
wide = gains[(gains["claim"] == "C1") & (gains["high"] > published)]
assert (wide["trained on"] + " " + wide["backbone"]).tolist() == ["icbhi mn04"]
gains[["trained on", "corpus", "backbone", "shows"]]

# %% [markdown]
# ## The map
#
# Read the chapters in this order. Each one also runs alone.

# %%
chapters = []
for source in sorted(paths.NOTEBOOKS.glob("[0-9]*.py")):
    cell = source.read_text(encoding="utf-8").split("# %%")[1]
    lines = [line.removeprefix("# ") for line in cell.splitlines()]
    title = f"{source.stem[:2]} {lines[1].removeprefix('# ')}"
    get = " ".join(lines).split("**What you will get:**")[-1].split("**Reproduces:**")[0]
    get = get.strip(" #-")
    chapters.append({"chapter": f"[{title}]({source.stem}.ipynb)", "what you will get": get})
Markdown(results.markdown(pd.DataFrame(chapters)))

# %% [markdown]
# ## The paper on one page
#
# Recordings of respiratory sounds differ in quality, and their classes differ in size. The paper
# asks a clip to lie closer, in **angle**, to its own class than a correct answer needs. It asks
# for more when the clip is *good* and when its class is *rare*. In training this extra angle, the
# **margin**, is added to the angle between the clip and its own class.
#
# An encoder gives a feature $x$. The classifier has one weight vector $w_k$ per class, its
# **prototype**. With both scaled to unit length, the cosine of the angle between them is
# $\cos\theta_k = \hat w_k^\top \hat x$. Two terms are trained on the same cosines, a cross-entropy
# (CE) and a margin loss, which the paper calls DFAM:
#
# $$L = \underbrace{\mathrm{CE}(s_a \cos\theta,\, y)}_{L_\mathrm{cls}}
#   + \lambda \underbrace{\left(-\log \frac{e^{s_d \cos(\theta_y + m_d)}}
#   {e^{s_d \cos(\theta_y + m_d)} + \sum_{j \ne y} e^{s_d \cos\theta_j}}\right)}_{L_\mathrm{DFAM}},
#   \qquad m_d = \gamma\, m_q + (1-\gamma)\, m_c$$
#
# - $y$ is the clip's class; $s_a = 37$ and $s_d = 15$ are the **scales**; $\lambda = 0.4$ weighs
#   the margin loss, $\gamma = 0.5$ the two margins.
# - The **quality margin** is $m_q = \kappa\,\mathrm{AQS}$ with $\kappa = 0.5$. The audio quality
#   score is $\mathrm{AQS} = \min(1, \max(0,\, 1 - 0.7 H_\mathrm{norm} + 0.3 R_\mathrm{norm}))$,
#   from the entropy $H$ of the spectrum and the root mean square (RMS) energy $R$. The entropy is
#   high when the energy is spread over all frequencies, as in noise, and low for a pure tone. So
#   the score falls with noise-like sound and rises with loudness.
# - The **log-scaled class margin** is $m_c(y) = -\frac{m_\mathrm{target}}{\log C} \log \pi_y$,
#   with $m_\mathrm{target} = 0.2$ rad (11.5°), $C$ classes, and the share $\pi_y$ of class $y$ in
#   training.
#
# A prediction is the class of the largest cosine. It needs no margin, hence no quality score.
#
# ### The margin, and what it does to the logit
#
# First the margin: it grows with quality and is larger for rare classes.
# The counts are those of ICBHI's training clips: normal, crackle, wheeze, both.

# %%
icbhi_train = [2063, 1215, 501, 363]
loss = margins.QLungLoss(icbhi_train)
aqs = torch.linspace(0, 1, 101)
margin = {
    name: loss.margin(torch.full((101,), k), aqs) for k, name in enumerate(figures.CLASS_COLOURS)
}

# %% [markdown]
# Then the **logit**, which is scale times cosine. A margin lowers the logit of the clip's own class
# at every angle, so training must make the angle smaller. Near 180° the dotted line continues as a
# parabola; notebook 03, section 3, explains why.

# %%
theta = torch.linspace(0, math.pi, 300)
cosines = torch.stack([theta.cos(), torch.zeros(300)], dim=1)  # target class first
target = torch.zeros(300, dtype=torch.long)
logits = {m: margins.angular_margin_logits(cosines, target, m, 15.0)[:, 0] for m in (0.0, 0.2, 0.5)}

# %% jupyter={"source_hidden": true}
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
for name, colour in figures.CLASS_COLOURS.items():
    left.plot(aqs, margin[name], color=colour, label=name)
for (m, logit), style in zip(logits.items(), ("-", "--", ":"), strict=True):
    right.plot(np.degrees(theta.numpy()), logit, style, color="black", label=f"m = {m} rad")
left.set(xlabel="audio quality score (AQS)", ylabel="margin $m_d$ [rad]", title="QLung's margin")
right.set(xlabel="angle to the target prototype θ [°]", ylabel="target logit")
right.set_title("A margin lowers the logit of the target")
left.legend(title="class")
right.legend()
table = pd.DataFrame({"class": list(margin), "m_c": loss.class_margin})
figures.save(fig, "00-margins", profile, table)

# %% [markdown]
# **Checked:** the class margins that the paper's formula gives for these counts.

# %% tags=["check"]
by_hand = [-0.2 / math.log(4) * math.log(n / sum(icbhi_train)) for n in icbhi_train]
assert np.allclose(loss.class_margin, by_hand, atol=1e-6)
assert np.allclose(by_hand, [0.1006, 0.1769, 0.3047, 0.3512], atol=5e-5)
dict(zip(margin, np.round(by_hand, 4).tolist(), strict=True))

# %% [markdown]
# ## The interpretation ledger: what the paper leaves open
#
# Anyone who reproduces a paper must make choices where the paper says nothing. We list ours in the
# **interpretation ledger** (`claims.toml`). You can skip the table at first reading. Table 3 is
# the paper's ablation: each of its rows marked + adds one part of the method. [Notebook
# 02](02_measure_quality.ipynb) shows what the choices do to the quality score, [notebook
# 05](05_ablate_margins.ipynb) what they do to the Score.

# %%
ledger = pd.DataFrame(claims.load("ledger"))[["open", "ours", "others", "why"]]
ledger.columns = ["left open", "chosen here", "alternatives", "why"]
Markdown(results.markdown(ledger))

# %% [markdown]
# ## The claims
#
# C1 to C7 are the paper's claims, L1 to L3 are limits that the paper does not discuss. [Notebook
# 08](08_judge_claims.ipynb) gives a verdict on each.

# %%
claimed = pd.DataFrame(claims.load())[["id", "text", "source", "paper"]]
claimed.columns = ["id", "claim", "where in the paper", "what the paper reports"]
Markdown(results.markdown(claimed))

# %% [markdown]
# ## What this profile trains
#
# `backbone` is the encoder, `lr` the learning rate. Every method is trained once per seed.

# %%
study = pd.DataFrame([vars(config) for config in profiles.load_profile(profile).configs()])
study.groupby(["backbone", "epochs", "batch_size", "lr"]).agg(
    methods=("method", "nunique"), seeds=("seed", "nunique"), runs=("seed", "size")
).reset_index()

# %% [markdown]
# Each run has a folder under `runs/PROFILE/`, named by encoder and method. It holds the settings
# and the provenance (`run.json`), the loss per epoch (`history.csv`), the weights
# (`model.safetensors`) and the predictions (`predictions.parquet`). Later chapters read
# predictions only.
#
# ## The environment
#
# `requirements.lock` pins the versions that the numbers were made with. A package that is not as
# locked may still work; its numbers may differ.

# %%
lock = (paths.ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
lock = dict(line.split(" ;")[0].split("==") for line in lock if "==" in line)
wanted = ["torch", "torchaudio", "numpy", "pandas", "librosa", "jupytext", "papermill", "seaborn"]
installed = {name: importlib.metadata.version(name).split("+")[0] for name in wanted}
rows = [(n, lock[n], "yes" if installed[n] == lock[n] else "no") for n in wanted]
pd.DataFrame(rows, columns=["package", "locked", "as locked"])

# %% [markdown]
# ## What we found
#
# The method is a few lines of code once the cosines are there, and its class margins follow from
# the counts. The list of what the paper leaves open is long. The paper is named after audio
# quality, but its quality score is the part that it describes least. On real recordings, at the
# size of this study, no gain over cross-entropy was measured.
#
# ## Try next
#
# - Change `target` (the paper's $m_\mathrm{target}$) or `gamma` in `QLungLoss(...)` above: which
#   class's margin changes most?
# - Read the ledger and mark the choices that you would have made differently.
#   [Notebook 02](02_measure_quality.ipynb) lets you try.
#
# [Next: Curate the data](01_curate_data.ipynb) · [Glossary](../docs/glossary.md) ·
# [All results](../RESULTS.md)
