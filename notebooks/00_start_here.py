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
# **You will hold:** a map of the book, a working environment, the paper on one page with its numbers recomputed, and
# the list of everything it leaves open.
# **Stands for:** the paper's introduction and method. **Costs:** seconds on every profile.
#
# Every notebook takes the same two parameters: `profile` says which study (`demo`: synthetic recordings, minutes, no
# network; `sc`: the part of ICBHI that was recorded on a single channel, and SPRSound; `paper`: everything), `data`
# the folder that holds `icbhi/` and `sprsound/`. `make reproduce PROFILE=sc DATA=DIR` runs all of them.

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""

# %%
import importlib.metadata
import math

import jupytext
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from qlung import margins, paths
from qlung.book import figures
from qlung.evaluation import claims
from qlung.training import profiles

_ = torch.manual_seed(0)
figures.use_style()
pd.set_option("display.max_colwidth", 120)

# %% [markdown]
# ## The map

# %%
book = []
for source in sorted(paths.NOTEBOOKS.glob("[0-9]*.py")):
    title, *rest = jupytext.read(source).cells[0].source.split("\n")
    promise = " ".join(rest).split("**You will hold:**")[-1].split("**Stands for:**")[0]
    book.append({"notebook": source.stem, "title": title.strip("# "), "you will hold": promise.strip()})
pd.DataFrame(book)

# %% [markdown]
# ## Is the environment the one the numbers were made with?
#
# `requirements.lock` pins it. A row that says "no" may still run; its numbers may differ.

# %%
lock = dict(line.split("==") for line in (paths.ROOT / "requirements.lock").read_text().splitlines() if "==" in line)
wanted = ["torch", "torchaudio", "numpy", "pandas", "librosa", "jupytext", "papermill", "seaborn"]
environment = pd.DataFrame({"package": wanted, "locked": [lock[name] for name in wanted]})
environment["as locked"] = [
    "yes" if importlib.metadata.version(name).split("+")[0] == lock[name] else "no" for name in wanted
]
environment

# %% [markdown]
# ## The paper on one page
#
# Respiratory-sound classifiers meet recordings of very different quality and classes of very different size. The paper
# asks for a larger **angle** between a clip and the wrong classes when the clip is *good* and when its class is *rare*.
#
# An encoder gives a feature $x$; with unit-length $\hat x$ and class weights $\hat w_k$ the cosine of the angle between
# them is $\cos\theta_k = \hat w_k^\top \hat x$. Two terms are trained on the same cosines:
#
# $$L = \underbrace{\mathrm{CE}(s_a \cos\theta,\, y)}_{L_\mathrm{cls}}
#   + \lambda \underbrace{\left(-\log \frac{e^{s_d \cos(\theta_y + m_d)}}
#   {e^{s_d \cos(\theta_y + m_d)} + \sum_{j \ne y} e^{s_d \cos\theta_j}}\right)}_{L_\mathrm{DFAM}},
#   \qquad m_d = \gamma\, m_q + (1-\gamma)\, m_c$$
#
# with the **quality margin** $m_q = \kappa\,\mathrm{AQS}$, where
# $\mathrm{AQS} = \mathrm{clip}(1 - 0.7 H_\mathrm{norm} + 0.3 R_\mathrm{norm},\, 0,\, 1)$ from spectral entropy $H$ and
# RMS energy $R$, and the **log-scaled class margin** $m_c(y) = -\frac{m_\mathrm{target}}{\log C} \log \pi_y$.
# Constants: $s_a = 37$, $s_d = 15$, $\lambda = 0.4$, $\gamma = \kappa = 0.5$, $m_\mathrm{target} = 0.2$ rad.
# At inference the largest cosine wins: no margin, hence no quality score, is needed.

# %%
icbhi_train = [2063, 1215, 501, 363]  # normal, crackle, wheeze, both: notebook 01 counts them
m_class = margins.class_margin(torch.tensor(icbhi_train))
loss = margins.QLungLoss(icbhi_train)
aqs = torch.linspace(0, 1, 101)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
for k, (name, colour) in enumerate(figures.CLASS_COLOURS.items()):
    m = loss.margin(torch.full((101,), k), aqs)
    _ = left.plot(aqs, m, color=colour, label=name)
_ = left.set(xlabel="audio quality score AQS", ylabel="margin $m_d$ [rad]", title="Better audio, rarer class: larger")
_ = left.legend(title="class")
theta = np.linspace(0, np.pi, 300)
for m, style in ((0.0, "-"), (0.2, "--"), (0.5, ":")):
    c = torch.tensor(np.cos(theta))
    logit = margins.angular_margin_logits(torch.stack([c, 0 * c], 1), torch.zeros(300).long(), m, 15.0)[:, 0]
    _ = right.plot(np.degrees(theta), logit, style, color="black", label=f"m = {m} rad")
_ = right.set(xlabel="angle to the own class θ [°]", ylabel="target logit", title="A margin makes the task harder")
_ = right.legend()
figures.save(fig, "00-margins", profile, pd.DataFrame({"class": list(figures.CLASS_COLOURS), "m_c": m_class}))

# %% [markdown]
# **Checked:** the class margins that the paper's formula gives for ICBHI's training counts.

# %% tags=["check"]
by_hand = [-0.2 / math.log(4) * math.log(n / sum(icbhi_train)) for n in icbhi_train]
assert np.allclose(m_class, by_hand, atol=1e-6)
assert np.allclose(by_hand, [0.1006, 0.1769, 0.3047, 0.3512], atol=5e-5)
dict(zip(figures.CLASS_COLOURS, np.round(by_hand, 4).tolist(), strict=True))

# %% [markdown]
# ## What the paper leaves open
#
# A reproduction has to choose where a paper is silent. Each choice is an entry of the **interpretation ledger**
# (`claims.toml`); notebooks 02 and 05 look at what the choices do.

# %%
pd.DataFrame(claims.load("ledger"))[["open", "ours", "others", "why"]]

# %% [markdown]
# ## What is being judged

# %%
pd.DataFrame(claims.load())[["id", "text", "source", "paper"]]

# %% [markdown]
# ## What this profile trains

# %%
row = profiles.load_profile(profile)
study = pd.DataFrame([vars(config) for config in row.configs()])
study.groupby(["backbone", "epochs", "batch_size", "lr"]).agg(
    methods=("method", "nunique"), seeds=("seed", "nunique"), runs=("seed", "size")
).reset_index()

# %% [markdown]
# ## What we found
#
# The method is a few lines once the cosines are there, and its class margins follow from the counts. What it leaves
# open is a longer list than what it states; the score that gives the paper its name is the least determined part.
#
# ## Try next
#
# - Change `m_target` or `gamma` in the figure above: which class gains most?
# - Read the ledger and mark the entries you would have decided otherwise. Notebook 02 lets you.
