# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,-kernelspec,-jupytext.text_representation
# ---

# %% [markdown]
# # Learn angular margins
#
# In training, a margin asks for more than a correct answer: a clip must lie closer to the
# direction of its own class than it needs to in order to be classified correctly.
# Here you build the QLung loss, from an ordinary softmax, in ten small exercises.
#
# **What you will get:** an understanding of every term of the QLung loss and of its gradient, ten
# answers of your own that are checked at once, and toy experiments that test what margins promise.
#
# **Reproduces:** the paper's method section: angular classifier, margin loss
# $\mathcal L_{\rm DFAM}$, quality margin and log-scaled class margin. It reproduces no table of
# results: everything here is geometry, or toy data whose true quality we know.
#
# **Runtime:** about a minute on one core, on every profile. You need no recordings, no internet
# connection and no GPU. In class, plan 90 minutes:
#
# | minutes | section | exercises |
# |---|---|---|
# | 10 | 1. Normalised softmax | 1 |
# | 10 | 2. Scale of the cosines | 2, 3 |
# | 20 | 3. Additive margins: CosFace and ArcFace | 4, 5, 6 |
# | 10 | 4. Numerical pitfalls of ArcFace | |
# | 15 | 5. Feature geometry on toy data | |
# | 10 | 6. Class margins for imbalanced data | 7 |
# | 15 | 7. Quality-adaptive margins, the QLung loss and its gradient; 8. Feature norm | 8, 9, 10 |
#
# The exercises are answered in [exercises/03_exercises.ipynb](exercises/03_exercises.ipynb), with a
# number or in code. It checks an answer at once, gives hints, and shows a worked answer when asked.
# Here no answer is shown: where the lesson needs one, `lessons.answer` fetches it.
#
# [Previous: Measure quality](02_measure_quality.ipynb) · [Next: Train](04_train.ipynb) ·
# [Glossary](../docs/glossary.md) · [All results](../RESULTS.md)

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""

# %%
import math

import torch
from torch.nn import functional as F

from qlung import margins
from qlung.book import lessons

torch.set_num_threads(1)  # the tensors here are small

# %%
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML
from scipy import stats
from torch import nn

from qlung import paths
from qlung.book import figures

# %%
torch.manual_seed(0)
figures.use_style()
pd.set_option("display.width", 140)
COLOUR = figures.CLASS_COLOURS
CLASSES = list(COLOUR)
BLUE, ORANGE, GREEN = (COLOUR[name] for name in ("normal", "crackle", "wheeze"))
BLACK, GREY = "#000000", "#999999"
TARGET_ANGLE = r"angle to the target prototype $\theta_y$ [°]"
GRADIENT_PER_SCALE = r"$\frac{1}{s}\,dL/d\theta_y$ [1/rad]"

# %% [markdown]
# Most figures compare several losses. This helper puts their tables into one long table.


# %%
def stacked(tables, column):
    """One long table from {name: table}; the new column `column` holds the names."""
    return pd.concat(tables, names=[column]).reset_index(column).reset_index(drop=True)


# %% [markdown]
# ## 1. Normalised softmax: the angular classifier
#
# What can training change to lower the loss of a clip? A linear classifier gives class $k$ the
# score (**logit**) $w_k^\top x = \lVert w_k\rVert\,\lVert x\rVert\cos\theta_k$. Here $x$ is the
# **feature**, the vector that the encoder computes from the clip; $w_k$ is the weight vector of
# class $k$, called its [prototype](../docs/glossary.md#prototype); $\theta_k$ is the angle between
# the two. $y$ is the true class of the clip, also called the **target**.
#
# Training can turn $x$ towards $w_y$, make $x$ longer, or make $w_y$ longer. Only the first one
# changes which prototype is nearest in angle. Division by both lengths leaves the angle:
#
# $$z_k=\cos\theta_k=\hat w_k^\top\hat x,\qquad
# \hat x=x/\lVert x\rVert,\quad \hat w_k=w_k/\lVert w_k\rVert .$$
#
# The paper calls this the **angular classifier**. To see the difference, we place the feature of
# a *wheeze* clip at many points of a plane. At each point we compute $-\nabla_x L$, the direction
# in which gradient descent moves the feature. $L$ is the cross-entropy (CE), the usual loss.

# %%
PROTOTYPES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-0.8, 0.6], [0.0, -1.0]])


def negative_gradient(points, logits_of, target):
    """-dL/dx of each point [N, 2] for a clip of class `target`."""
    x = points.clone().requires_grad_()
    y = torch.full((len(x),), target)
    F.cross_entropy(logits_of(x, y), y, reduction="sum").backward()
    return -x.grad


# %% [markdown]
# Three ways to get logits from a feature. Sections 2 and 3 explain scale $s$ and margin $m$.


# %%
def plane_cosines(x):
    """Cosines [N, 4] of points [N, 2] to the four prototypes."""
    return F.normalize(x, dim=1) @ PROTOTYPES.T


LOGITS = {
    "linear softmax": lambda x, y: x @ PROTOTYPES.T,
    "normalised softmax, s = 4": lambda x, y: 4 * plane_cosines(x),
    "ArcFace, s = 4, m = 0.5 rad": lambda x, y: margins.angular_margin_logits(
        plane_cosines(x), y, 0.5, 4.0
    ),
}

# %%
axis = torch.linspace(-1.8, 1.8, 13)
points = torch.cartesian_prod(axis, axis)
points = points[points.norm(dim=1) > 0.35]
wheeze = CLASSES.index("wheeze")
fields = {name: negative_gradient(points, logits, wheeze) for name, logits in LOGITS.items()}
columns = ["x1", "x2", "minus_gradient_1", "minus_gradient_2"]
tables = {n: pd.DataFrame(np.hstack([points, f]), columns=columns) for n, f in fields.items()}

# %% [markdown]
# Two drawing helpers:


# %% jupyter={"source_hidden": true}
def draw_prototypes(ax, prototypes):
    """One line from the origin to the prototype [2 or 3 numbers] of every class."""
    for name, w in zip(CLASSES, prototypes, strict=True):
        ax.plot(*torch.stack([0 * w, w], 1).numpy(), color=COLOUR[name], lw=3, label=name)


def legend_below(fig, ax, title):
    """The legend of one panel, below the figure."""
    handles = ax.get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=4, title=title)


# %% jupyter={"source_hidden": true}
ARROWS = {"cmap": "viridis_r", "scale": 19, "width": 0.008}
fig, axes = plt.subplots(1, 3, figsize=(8.2, 3.1), sharex=True, sharey=True)
for ax, (name, field) in zip(axes, fields.items(), strict=True):
    size = field.norm(dim=1)
    arrows = ax.quiver(*points.T, *(field.T / size), size, clim=(0, 3), **ARROWS)
    ax.add_patch(plt.Circle((0, 0), 1, fill=False, color=GREY, lw=0.8))
    draw_prototypes(ax, PROTOTYPES)
    ax.set(title=name, xlabel="feature $x_1$", ylabel="feature $x_2$", aspect="equal")
    ax.label_outer()
    ax.grid(False)
fig.colorbar(arrows, ax=axes, label=r"size of the gradient $\Vert\nabla_x L\Vert$", shrink=0.8)
legend_below(fig, axes[0], "prototypes; arrows: how training moves a wheeze clip")
figures.save(fig, "03-force-fields", profile, stacked(tables, "loss"))

# %% [markdown]
# All arrows have the same length; the colour shows the strength (dark = strong). The linear
# softmax can also make the feature longer or shorter. With normalised features every arrow is
# perpendicular to the feature: training only turns it. The longer the feature, the smaller the
# gradient, in proportion to $1/\lVert x\rVert$.

# %% tags=["check"]
radius = F.normalize(points, dim=1)
radial = {name: float((radius * field).sum(1).abs().max()) for name, field in fields.items()}
assert radial.pop("linear softmax") > 0.5
assert max(radial.values()) < 1e-5
print("Only the linear softmax has a gradient along the feature; the others are perpendicular.")

# %% [markdown]
# **Exercise margin-1 (angular classifier).** Compute the cosine between every feature of a batch
# and every prototype. [Answer it](exercises/03_exercises.ipynb#margin-1:-angular-classifier) before
# you read on. The next cell fetches a worked answer for later sections. `cosines` alone in a cell
# shows it.

# %%
cosines = lessons.answer("margin-1")

# %% [markdown]
# ## 2. Scale of the cosines
#
# Can a softmax over bare cosines ever be sure? Cosines lie in $[-1, 1]$. Take the best possible
# clip. Its cosine is 1 to its own prototype, and $-1/(C-1)$ to each of the others: $C$ directions
# cannot spread further apart than that (the sum of $C$ unit vectors has squared length
# $C+C(C-1)\cos\ge 0$). Even this clip keeps a loss well above zero. The logits therefore need a
# [scale](../docs/glossary.md#scale) $s$: $s\cos\theta_k$.

# %% [markdown]
# **Exercise margin-2 (best probability).** Which probability does the best possible clip reach, at
# scale $s$ with $C$ classes?
# [Answer it](exercises/03_exercises.ipynb#margin-2:-best-probability).

# %%
reachable_probability = lessons.answer("margin-2")

# %% [markdown]
# **Exercise margin-3 (smallest scale).** At which scale does this clip reach a given probability?
# [Answer it](exercises/03_exercises.ipynb#margin-3:-smallest-scale).

# %%
smallest_scale = lessons.answer("margin-3")
scale_needed = smallest_scale(0.99, 4)

# %% [markdown]
# The reachable probability as a curve, for four numbers of classes:

# %%
scales, tables = np.geomspace(0.3, 100, 200), {}
for c in (2, 4, 100, 10_000):
    percent = [100 * reachable_probability(s, c) for s in scales]
    tables[f"C = {c:,}"] = pd.DataFrame({"s": scales, "p [%]": percent})
reach = stacked(tables, "classes")

# %% [markdown]
# The scale has a second effect: it decides **at which angles the loss has a gradient**. We look at
# the simplest case, a target class and one other class. The function returns the target's logit
# and the gradient of the loss with respect to the angle, $dL/d\theta_y$ (short: the gradient in
# the angle). The larger this gradient, the more
# strongly training turns the clip towards its prototype. Sections 3, 7 and 9 use it again.


# %%
def logit_and_gradient(theta, margin=0.0, scale=15.0, cosine_margin=0.0, other=torch.zeros_like):
    """Target logit [N] and dL/dtheta [N, 1/rad]; the cosine to the other class is other(theta)."""
    theta = theta.clone().requires_grad_()
    cosine = torch.stack([theta.cos(), other(theta)], 1)
    target = torch.zeros(len(theta), dtype=torch.long)
    logits = margins.angular_margin_logits(cosine, target, margin, scale, cosine_margin)
    loss = F.cross_entropy(logits, target, reduction="sum")
    return logits[:, 0].detach(), torch.autograd.grad(loss, theta)[0]


# %% [markdown]
# Here the clip lies between two prototypes that are 90° apart. Its angle to the other prototype is
# $90°-\theta_y$, so its cosine to the other prototype is $\sin\theta_y$. The decision boundary is
# at 45°. The gradient grows with $s$, so we divide it by $s$ to compare the curves.

# %%
theta = torch.linspace(1e-3, math.pi / 2, 300)
slopes = {}
for s in (4, 15, 37, 64):
    _, gradient = logit_and_gradient(theta, scale=float(s), other=torch.sin)
    slopes[f"s = {s}"] = pd.DataFrame({"angle [°]": theta.rad2deg(), "gradient / s": gradient / s})
slopes = stacked(slopes, "scale")

# %% jupyter={"source_hidden": true}
fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.3))
sns.lineplot(reach, x="s", y="p [%]", hue="classes", style="classes", estimator=None, ax=left)
left.axvline(scale_needed, color=GREY, lw=1.2, label="99 % with C = 4")
left.set(xscale="log", xlabel="scale s", ylabel="reachable probability [%]",
         title="Best possible clip")  # fmt: skip
sns.lineplot(slopes, x="angle [°]", y="gradient / s", hue="scale", estimator=None, ax=right)
right.axvline(45, color=GREY, lw=0.8, ls="--", label="boundary")
right.set(xlabel=TARGET_ANGLE, ylabel=GRADIENT_PER_SCALE, xticks=range(0, 91, 15),
          title="Gradient in the angle")  # fmt: skip
for ax in (left, right):
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
figures.save(fig, "03-scale", profile, pd.concat([reach, slopes]))

# %% [markdown]
# A small scale gives a gradient at every angle. A large scale gives one only near the boundary and
# on its wrong side.
#
# The paper uses two scales: $s_a=37$ for the classifier and $s_d=15$ for the margin loss. With four
# classes both can reach practically any probability; they differ in where their gradient is. Face
# recognition often uses 64, but there a classifier has thousands of classes.

# %% tags=["check"]
assert math.isclose(reachable_probability(scale_needed, 4), 0.99)
shortfall = {s: 1 - reachable_probability(s, 4) for s in (15, 37)}
assert shortfall[37] < 1e-15 < shortfall[15] < 1e-8
print(f"With C = 4 the best possible clip reaches {reachable_probability(1, 4):.1%} at s = 1")
print(f"and 99 % at s = {scale_needed:.2f}. It falls short of 1 by {shortfall[15]:.0e} at s = 15")
print("and by less than 1e-15 at s = 37: neither of the paper's scales is a limit.")

# %% [markdown]
# ## 3. Additive margins: CosFace (cosine) and ArcFace (angle)
#
# How much nearer than the others must the right prototype be? Softmax classifies a clip correctly
# as soon as $\theta_y$ is the smallest angle, by however little. A
# [margin](../docs/glossary.md#margin) $m$ lowers the target's logit in training. The clip must then
# come closer to its prototype than a correct decision needs. **CosFace** and **ArcFace** are two
# losses from face recognition. CosFace subtracts the margin from the cosine, ArcFace adds it to the
# angle. $\theta_j$ is the angle to another class:
#
# | loss | target logit | decision boundary in training |
# |---|---|---|
# | normalised softmax | $s\cos\theta_y$ | $\theta_y=\theta_j$ |
# | CosFace | $s(\cos\theta_y-m)$ | $\cos\theta_y-m=\cos\theta_j$: the angular gap varies |
# | ArcFace | $s\cos(\theta_y+m)$ | $\theta_y+m=\theta_j$: the angular gap is always $m$ |
#
# Beyond $\theta_y=\pi-m$ the cosine of $\theta_y+m$ rises again, which would reward a *larger*
# angle. From there on `qlung.margins` continues with a parabola of the same value and slope.

# %% [markdown]
# **Exercise margin-4 (ArcFace).** Compute ArcFace's target logit, for $\theta + m \le \pi$.
# [Answer it](exercises/03_exercises.ipynb#margin-4:-ArcFace).

# %% [markdown]
# **Exercise margin-5 (all logits).** Compute all logits of a batch. Only the target class gets the
# margin; every class gets the scale.
# [Answer it](exercises/03_exercises.ipynb#margin-5:-all-logits).

# %% [markdown]
# **Exercise margin-6 (inference).** Predict the class of clips whose true class is unknown.
# [Answer it](exercises/03_exercises.ipynb#margin-6:-inference).

# %% [markdown]
# What does a margin change? We compare target logit and gradient of four losses at every angle. The
# cosine to the other class is 0. One function of the library computes the logits of all of them:
# `margins.angular_margin_logits(cosine, target, margin, scale, cosine_margin)`.

# %%
theta = torch.linspace(1e-3, math.pi - 1e-3, 600, dtype=torch.float64)
FOUR_LOSSES = {
    "normalised softmax": {},
    "CosFace, 0.35": {"cosine_margin": 0.35},
    "ArcFace, 0.5 rad": {"margin": 0.5},
    "ArcFace, 1 rad": {"margin": 1.0},
}

# %%
tables = {}
for name, margin in FOUR_LOSSES.items():
    logit, gradient = logit_and_gradient(theta, **margin)
    columns = {"angle [°]": theta.rad2deg(), "logit": logit, "gradient": gradient}
    tables[name] = pd.DataFrame(columns)
curves = stacked(tables, "loss")

# %% jupyter={"source_hidden": true}
fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.4))
style = {"data": curves, "x": "angle [°]", "hue": "loss", "palette": [BLACK, GREEN, BLUE, ORANGE]}
sns.lineplot(**style, y="logit", estimator=None, legend=False, ax=left)
sns.lineplot(**style, y="gradient", estimator=None, ax=right)
for m, colour in ((0.5, BLUE), (1.0, ORANGE)):
    beyond = theta[theta > math.pi - m]
    left.plot(math.degrees(math.pi - m), -15, "o", color=colour, ms=5)
    left.plot(beyond.rad2deg(), 15 * torch.cos(beyond + m), ":", color=colour, lw=1.3)
for ax, label in ((left, "target logit (s = 15)"), (right, r"gradient $dL/d\theta_y$ [1/rad]")):
    ax.set(xlabel=TARGET_ANGLE, xticks=range(0, 181, 45), ylabel=label)
right.legend(loc="center left", bbox_to_anchor=(1, 0.5),
             title="dots: θ + m = π\ndotted: cos(θ + m)\nbeyond it")  # fmt: skip
figures.save(fig, "03-target-logits", profile, curves)

# %% tags=["check"]
for _, table in curves.groupby("loss"):
    assert (table["logit"].diff().dropna() <= 1e-9).all()
print("Every target logit falls with the angle, on both sides of π − m.")

# %% [markdown]
# The right panel shows what a margin does: it moves the gradient to smaller angles. It also shows
# a drawback: at exactly $\theta_y=\pi-m$ the gradient is zero, so such a clip is not moved. (QLung
# avoids this with a second term without a margin; see section 7.)
#
# A margin on the cosine is not a fixed angle. Take two prototypes at an angle $\Delta$. The middle
# line, the direction halfway between them, is at $\Delta/2$. How much closer than the middle line
# must a clip come?

# %%
delta = torch.linspace(0.05, math.pi, 300, dtype=torch.float64)
theta = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None] * delta  # from target to other
satisfied = {
    "CosFace, 0.35": theta.cos() - 0.35 >= (delta - theta).cos(),
    "ArcFace, 0.35 rad": theta + 0.35 <= delta - theta,
}

# %%
tables = {}
for name, holds in satisfied.items():
    largest = torch.where(holds, theta, -1.0).amax(0)  # -1: no position satisfies it
    gap = torch.where(largest >= 0, delta / 2 - largest, torch.nan)
    tables[name] = pd.DataFrame({"between [°]": delta.rad2deg(), "gap [°]": gap.rad2deg()})
gaps = stacked(tables, "loss")

# %% jupyter={"source_hidden": true}
fig, ax = plt.subplots(figsize=(6.4, 3.1))
sns.lineplot(gaps, x="between [°]", y="gap [°]", hue="loss", palette=[GREEN, BLUE],
             estimator=None, ax=ax)  # fmt: skip
ax.set(xlabel=r"angle $\Delta$ between the two prototypes [°]", ylim=(0, None),
       ylabel="required distance from\nthe middle line [°]", xticks=range(0, 181, 45),
       title="Half of the gap that the margin requires")  # fmt: skip
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
figures.save(fig, "03-cosine-or-angle", profile, gaps)

# %% [markdown]
# The middle line splits the gap into two equal halves, so ArcFace asks for $m/2$ on each side:
# 0.35 rad = 20°, hence 10°, at every $\Delta$. CosFace asks for more when the prototypes are
# closer. A line ends where no position satisfies the margin any more.

# %% [markdown]
# ## 4. Numerical pitfalls: six implementations of ArcFace
#
# The formula $\cos(\theta_y+m)$ fits on one line. Why do public implementations disagree on it?
# Here are six versions, all modelled on public code. `c` is the target's cosine and `m` the margin;
# the scale is left out. The first two go through the angle. Their cell is folded, because they also
# answer exercise margin-4; open it when you have solved that.


# %% jupyter={"source_hidden": true}
def naive(c, m):
    return torch.cos(torch.acos(c) + m)


def clamped(c, m, eps=1e-7):
    return torch.cos(torch.acos(c.clamp(-1 + eps, 1 - eps)) + m)


# %% [markdown]
# The next ones use $\cos(\theta+m)=\cos\theta\cos m-\sin\theta\sin m$ (`expanded`), each with its
# own rule for large angles, where the cosine would rise again:


# %%
def expanded(c, m):
    return c * math.cos(m) - (1 - c**2).sqrt() * math.sin(m)


def easy(c, m):
    return torch.where(c > 0, expanded(c, m), c)


def threshold(c, m):
    inside = c > math.cos(math.pi - m)
    return torch.where(inside, expanded(c, m), c - m * math.sin(math.pi - m))


# %% [markdown]
# The fifth adds the margin without letting the gradient through (`detach`). The last is ours:


# %%
def detached(c, m):
    return c + (torch.cos(torch.acos(c) + m) - c).detach()


def ours(c, m):
    cosine, target = torch.stack([c, 0 * c], 1), torch.zeros(len(c), dtype=torch.long)
    return margins.angular_margin_logits(cosine, target, m, 1.0)[:, 0]


# %%
VERSIONS = {
    "acos, cos": naive,
    "acos, clamped": clamped,
    "expansion, easy margin": easy,
    "expansion, threshold": threshold,
    "margin without gradient": detached,
    "qlung.margins": ours,
}
m = 0.5

# %% [markdown]
# We ask five questions about each version. They are the columns of the table:
#
# - **on prototype**: is the gradient finite when the feature lies exactly on its prototype? A NaN
#   ("not a number") there would spread through the whole network.
# - **jump**: how large is the largest jump of the logit on $(0,\pi)$?
# - **rises**: on which part of $(0,\pi)$ does a *larger* angle get a *larger* logit?
# - **no margin**: on which part is the logit equal to the cosine without a margin?
# - **gradcheck**: is the gradient the derivative of the logit (compared with finite differences)?


# %%
def on_prototype(version):
    """Is the gradient of a feature that equals its prototype a number?"""
    x = torch.tensor([[1.0, 0.0]], requires_grad=True)
    version(F.normalize(x, dim=1)[:, 0], m).sum().backward()
    return "NaN" if x.grad.isnan().any() else "finite"


def gradcheck(version):
    """Compare autograd with finite differences at four angles."""
    c = torch.tensor([0.6, 0.3, -0.2, -0.95], dtype=torch.float64, requires_grad=True)
    passes = torch.autograd.gradcheck(lambda c: version(c, m), c, raise_exception=False)
    return "passes" if passes else "fails"


# %%
def audit(version):
    """One row of the table."""
    theta = torch.linspace(0.001, math.pi - 0.001, 200_001, dtype=torch.float64)
    logit = version(theta.cos(), m)
    step, no_margin = logit.diff(), (logit - theta.cos()).abs() < 1e-9
    return {
        "on prototype": on_prototype(version),
        "jump": float(step.abs().max().round(decimals=2)),
        "rises [%]": round(100 * float((step > 1e-12).double().mean())),
        "no margin [%]": round(100 * float(no_margin.double().mean())),
        "gradcheck": gradcheck(version),
    }


# %%
audited = pd.DataFrame({name: audit(version) for name, version in VERSIONS.items()}).T
audited

# %% [markdown]
# Why NaN? The derivatives of $\arccos c$ and of $\sqrt{1-c^2}$ contain $1/\sqrt{1-c^2}$, which is
# infinite at $c=1$. The chain rule then multiplies infinity by zero, and the result is NaN.
#
# The same versions as curves. The second curve is the slope of the logit itself, not of the loss,
# so it should never be positive. A jump appears as a vertical line.

# %%
tables = {}
for name, version in VERSIONS.items():
    theta = torch.linspace(0.001, math.pi - 0.001, 1500, dtype=torch.float64)
    c = theta.cos().requires_grad_()
    logit = version(c, m)
    (slope,) = torch.autograd.grad(logit.sum(), c)
    columns = {"logit": logit.detach(), "slope of the logit, dz/dθ [1/rad]": -slope * theta.sin()}
    tables[name] = pd.DataFrame({"angle [°]": theta.rad2deg(), **columns})
versions = stacked(tables, "version")

# %% jupyter={"source_hidden": true}
fig, axes = plt.subplots(2, 3, figsize=(9.6, 4.9), sharex=True, sharey=True)
for ax, (name, table) in zip(axes.flat, versions.groupby("version", sort=False), strict=True):
    long = table.melt(["version", "angle [°]"], var_name="curve")
    sns.lineplot(long, x="angle [°]", y="value", hue="curve", estimator=None,
                 legend=ax is axes.flat[0], ax=ax)  # fmt: skip
    ax.axvline(math.degrees(math.pi - m), color=GREY, lw=0.8, ls="--")
    ax.set(title=name, xticks=range(0, 181, 45), xlabel=r"$\theta_y$ [°]", ylabel="")
    ax.label_outer()
handles = axes.flat[0].get_legend_handles_labels()
axes.flat[0].get_legend().remove()
fig.legend(*handles, loc="outside lower center", ncols=2, title="m = 0.5 rad; dashed: π − m")
figures.save(fig, "03-six-arcfaces", profile, versions)

# %% tags=["check"]
FAULTS = {
    "NaN on the prototype": audited["on prototype"] == "NaN",
    "jumps": audited["jump"] > 0.01,
    "a larger angle gets a larger logit": audited["rises [%]"] > 0,
    "no margin on a part": audited["no margin [%]"] > 0,
    "gradient is not its derivative": audited["gradcheck"] == "fails",
}
for fault, has_it in FAULTS.items():
    print(f"{fault}: {'; '.join(audited.index[has_it])}")
correct = audited.index[~pd.DataFrame(FAULTS).any(axis=1)]
assert list(correct) == ["qlung.margins"]
print(f"none of these: {'; '.join(correct)}")

# %% [markdown]
# ## 5. Feature geometry on toy data: a circle and a sphere
#
# Do margins make classes more compact and better separated? We test it where the truth is known.
# A toy clip is a vector of sixteen numbers. The first is the loudness of a breath sound, the
# second of a crackle and the third of a wheeze; the last two are zero if the class does not have
# that sound. Then noise is added to all sixteen numbers.
# We set its **signal-to-noise ratio** (SNR), so the
# true quality of every clip is known. A small encoder maps it to two or three dimensions, which we
# can draw.


# %%
class Clips(NamedTuple):
    """A set of n toy clips."""

    x: torch.Tensor  # [n, 16], input of the encoder
    target: torch.Tensor  # [n], class 0 to 3
    snr: torch.Tensor  # [n, dB], signal-to-noise ratio


# %%
def make_clips(counts, seed, dim=16):
    """Toy clips, counts[k] of class k, with SNR between -5 and 20 dB."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    present = torch.stack([torch.ones_like(target), target % 2, target // 2], 1).float()
    loudness = 0.6 + 0.8 * torch.rand(len(target), 3, generator=generator)
    clean = F.pad(present * loudness, (0, dim - 3))
    snr = -5.0 + 25.0 * torch.rand(len(target), generator=generator)
    noise = F.normalize(torch.randn(len(target), dim, generator=generator), dim=1)
    noise = noise * clean.norm(dim=1, keepdim=True) * 10 ** (-snr[:, None] / 20)
    return Clips(clean + noise, target, snr)


# %% [markdown]
# Training is a short PyTorch loop. An `objective` computes a loss from features, cosines,
# prototypes and clips.
#
# On a circle two prototypes cannot pass each other, and from a random start they can get stuck at
# the same place. In two dimensions we therefore start them a quarter turn apart (`RING`). In three
# dimensions this is not needed.

# %%
RING = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]])


# %%
def train(objective, clips, dim, seed=0, steps=200):
    """Train encoder and prototypes with objective(features, cosine, prototypes, clips)."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, dim))
    head = margins.AngularClassifier(dim, 4)
    if dim == 2:
        head.prototypes.data.copy_(RING)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        features = encoder(clips.x)
        objective(features, head(features), head.prototypes, clips).backward()
        optimiser.step()
    return encoder, head


# %% [markdown]
# One function makes the objectives with a fixed margin. Section 6 uses it with one margin per class
# and with a value added to the logits.


# %%
def margin_loss(margin=0.0, cosine_margin=0.0, added=0.0):
    """Cross-entropy at scale 15 with margins: one number for all classes, or one per class [4]."""
    margin, cosine_margin = torch.as_tensor(margin), torch.as_tensor(cosine_margin)

    def objective(features, cosine, prototypes, clips):
        y = clips.target
        angle, drop = margin.expand(4)[y], cosine_margin.expand(4)[y]
        logits = margins.angular_margin_logits(cosine, y, angle, 15.0, drop)
        return F.cross_entropy(logits + added, y)

    return objective


# %% [markdown]
# QLung needs a quality in $[0, 1]$. On recordings it is the paper's audio-quality score
# ([AQS](../docs/glossary.md#aqs)). Here we compute a perfect one from the known SNR.

# %%
COUNTS = [150] * 4
qlung_toy = margins.QLungLoss(torch.tensor(COUNTS))


def quality(snr):
    """Perfect quality score: 0 at -5 dB, 1 at 20 dB."""
    return ((snr + 5) / 25).clamp(0, 1)


# %%
def linear_loss(features, cosine, prototypes, clips):
    return F.cross_entropy(features @ prototypes.T, clips.target)


def qlung_objective(features, cosine, prototypes, clips):
    return qlung_toy(cosine, clips.target, quality(clips.snr))


# %%
LOSSES = {
    "linear softmax": linear_loss,
    "normalised": margin_loss(),
    "CosFace, 0.3": margin_loss(cosine_margin=0.3),
    "ArcFace, 0.3 rad": margin_loss(margin=0.3),
    "QLung": qlung_objective,
}

# %% [markdown]
# **On a circle.** We train with one set of clips and draw held-out clips, which training never
# used. For the normalised losses only the direction of a feature counts. There we place it at
# radius 1 to 1.3: the further out, the better the quality of the clip.

# %%
training, held_out = make_clips(COUNTS, seed=1), make_clips(COUNTS, seed=2)
held_out_class = [CLASSES[k] for k in held_out.target]
CIRCLE = ("linear softmax", "normalised", "ArcFace, 0.3 rad", "QLung")
circle = {name: train(LOSSES[name], training, dim=2) for name in CIRCLE}

# %%
tables = {}
for name, (encoder, _) in circle.items():
    features = encoder(held_out.x).detach()
    if name != "linear softmax":
        features = F.normalize(features, dim=1) * (1 + 0.3 * quality(held_out.snr)[:, None])
    tables[name] = pd.DataFrame(features.numpy(), columns=["x1", "x2"]).assign(label=held_out_class)
circle_points = stacked(tables, "loss")

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"]
fig, axes = plt.subplots(1, 4, figsize=(10.2, 3.3))
for ax, (name, table) in zip(axes, circle_points.groupby("loss", sort=False), strict=True):
    linear = name == "linear softmax"
    radius = float(np.hypot(table["x1"], table["x2"]).quantile(0.95)) if linear else 1.0
    sns.scatterplot(table, x="x1", y="x2", hue="label", palette=COLOUR, s=3, linewidth=0,
                    alpha=0.5, legend=False, ax=ax)  # fmt: skip
    draw_prototypes(ax, radius * F.normalize(circle[name][1].prototypes.detach(), dim=1))
    if not linear:
        ax.add_patch(plt.Circle((0, 0), 1, fill=False, color=GREY, lw=0.8))
    hat, side = ("" if linear else r"\hat "), 1.4 * radius
    ax.set(title=name, aspect="equal", xlim=(-side, side), ylim=(-side, side),
           xlabel=f"${hat}x_1$", ylabel=f"${hat}x_2$")  # fmt: skip
legend_below(fig, axes[0], "toy data; lines: prototypes, points: held-out clips")
figures.save(fig, "03-circle", profile, circle_points)

# %% [markdown]
# The linear softmax also uses the length of a feature; the other three use the direction only.
# *normalised*, *ArcFace* and *QLung* look almost alike, so we have to measure.
#
# **On a sphere.** In three dimensions we draw the directions of the held-out clips. A short line
# points towards you or away from you; every prototype has length 1.

# %%
SPHERE = ("linear softmax", "normalised", "QLung")
sphere = {name: train(LOSSES[name], training, dim=3) for name in SPHERE}
tables = {}
for name, (encoder, _) in sphere.items():
    direction = F.normalize(encoder(held_out.x).detach(), dim=1).numpy()
    tables[name] = pd.DataFrame(direction, columns=list("xyz")).assign(label=held_out_class)
sphere_points = stacked(tables, "loss")

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"]
fig, axes = plt.subplots(1, 3, figsize=(8.8, 3.5), subplot_kw={"projection": "3d"})
turn = np.linspace(0, 2 * math.pi, 60)
ring = np.stack([np.cos(turn), np.sin(turn), 0 * turn])
for ax, (name, table) in zip(axes, sphere_points.groupby("loss", sort=False), strict=True):
    for order in ([0, 1, 2], [0, 2, 1], [2, 0, 1]):
        ax.plot(*ring[order], color="#AAAAAA", lw=0.6)
    ax.scatter(*table[["x", "y", "z"]].to_numpy().T, s=2, alpha=0.5, depthshade=False, linewidth=0,
               color=[COLOUR[label] for label in table["label"]])  # fmt: skip
    draw_prototypes(ax, F.normalize(sphere[name][1].prototypes.detach(), dim=1))
    ax.set(title=name, xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    ax.set_box_aspect((1, 1, 1), zoom=1.6)
    ax.set_axis_off()
legend_below(fig, axes[0], "toy data; lines: prototypes, points: held-out clips")
figures.save(fig, "03-sphere", profile, sphere_points)

# %% [markdown]
# Pictures are not a measurement. We measure three quantities on held-out clips in three dimensions,
# for every loss and five seeds:
#
# - **within**: mean angle between a clip and the mean direction of its class (compactness);
# - **between**: smallest angle between the mean directions of two classes (separation);
# - **accuracy**: share of clips that are nearest to the prototype of their own class.


# %%
def separation(encoder, head, clips):
    """Angles [°] within and between classes, and accuracy [%]."""
    features = encoder(clips.x).detach()
    direction = F.normalize(features, dim=1)
    centre = torch.stack([direction[clips.target == k].mean(0) for k in range(4)])
    centre = F.normalize(centre, dim=1)
    within = (direction * centre[clips.target]).sum(1).clamp(-1, 1).acos().rad2deg().mean()
    between = (centre @ centre.T - 2 * torch.eye(4)).max().clamp(-1, 1).acos().rad2deg()
    correct = (head(features).argmax(1) == clips.target).float().mean()
    values = (float(within), float(between), 100 * float(correct))
    return dict(zip(("within [°]", "between [°]", "accuracy [%]"), values, strict=True))


# %%
rows = []
for name, objective in LOSSES.items():
    for seed in range(5):
        networks = train(objective, training, 3, seed)
        rows.append({"loss": name, "seed": seed, **separation(*networks, held_out)})
measured = pd.DataFrame(rows)

# %% tags=["nbval-ignore-output"]
measured.drop(columns="seed").groupby("loss", sort=False).agg(["mean", "std"]).round(1)

# %% [markdown]
# Is a difference larger than chance? Losses are compared seed by seed: both have the same training
# clips and start from the same random weights. The interval is the 95 % interval of the mean
# difference over seeds (Student's t).


# %%
def compare(values, name, baseline):
    """Mean difference to the baseline over seeds (rows), its 95 % interval, and a verdict."""
    change = values[name] - values[baseline]
    half = stats.t.ppf(0.975, len(change) - 1) * change.sem()
    direction = "higher" if change.mean() > 0 else "lower"
    verdict = "no clear difference" if abs(change.mean()) <= half else direction
    return f"{change.mean():+5.1f} ± {half:.1f}: {verdict}"


# %% tags=["check", "nbval-ignore-output"]
by_seed = measured.pivot_table(index="seed", columns="loss")
print("toy data, difference to the normalised softmax (no margin)")
for name in ("CosFace, 0.3", "ArcFace, 0.3 rad", "QLung"):
    for column in ("within [°]", "between [°]", "accuracy [%]"):
        print(f"{name:17} {column:13} {compare(by_seed[column], name, 'normalised')}")
assert measured["accuracy [%]"].between(25, 100, inclusive="right").all()

# %% [markdown]
# **And the scale?** By section 2, any scale above 4.3 can reach 99 % with four classes. We train
# the normalised softmax without a margin at five scales, with three seeds per scale. We add the
# held-out cross-entropy. It grows when the probabilities are too sure of wrong answers.


# %%
def normalised_loss(scale):
    """Cross-entropy of the normalised softmax without a margin."""
    return lambda features, cosine, prototypes, clips: F.cross_entropy(scale * cosine, clips.target)


# %%
rows = []
for scale in (1.0, scale_needed, 15.0, 37.0, 64.0):
    for seed in range(3):
        encoder, head = train(normalised_loss(scale), training, 3, seed)
        loss = F.cross_entropy(scale * head(encoder(held_out.x)), held_out.target).item()
        geometry = separation(encoder, head, held_out)
        rows.append({"scale": round(scale, 1), **geometry, "cross-entropy [nats]": loss})
by_scale = pd.DataFrame(rows).groupby("scale").agg(["mean", "std"])

# %% tags=["nbval-ignore-output"]
by_scale.round(2)

# %% tags=["check"]
mean = by_scale.xs("mean", axis=1, level=1)
assert mean["cross-entropy [nats]"][1.0] > mean["cross-entropy [nats]"][4.3]
assert mean["cross-entropy [nats]"][64.0] > mean["cross-entropy [nats]"][4.3]
assert mean["between [°]"][64.0] < mean["between [°]"][4.3] / 2
print("Toy data: the held-out cross-entropy is higher at scale 1 and at scale 64 than at 4.3.")
print("At scale 64 the classes lie less than half as far apart as at scale 4.3.")

# %% [markdown]
# At scale 1 the probabilities can never be sure. At scale 64 they are sure of wrong answers, and a
# small angle between two classes already satisfies the loss.

# %% [markdown]
# ## 6. Class margins for imbalanced data
#
# What happens to a class that is rarely seen? Its prototype is pushed away by the clips of all
# other classes. Three published corrections use the class frequency $\pi_y=n_y/N$, where $n_y$ of
# the $N$ training clips have class $y$: QLung's **log-scaled class margin**, the
# label-distribution-aware margin (LDAM), and logit adjustment.
#
# | | correction | where it acts |
# |---|---|---|
# | QLung | $m_c=-m_{\rm target}\,\log\pi_y/\log C$ | added to the angle [rad] |
# | LDAM | in proportion to $n_y^{-1/4}$ | subtracted from the cosine |
# | logit adjustment | $\log\pi_k$ | added to **every** logit |

# %% [markdown]
# **Exercise margin-7 (class margin).** Compute QLung's class margin from the clips per class. Which
# margin does a class with frequency $1/C$ get?
# [Answer it](exercises/03_exercises.ipynb#margin-7:-class-margin).

# %%
log_class_margin = lessons.answer("margin-7")

# %% [markdown]
# How do the three compare? We draw them against the frequency of the class. Logit adjustment
# changes the logits; divided by the scale 15 it becomes comparable with a margin on the cosine. The
# points are the classes of ICBHI, the corpus of the 2017 International Conference on Biomedical and
# Health Informatics (training clips of the official split, as the paper gives them). For logit
# adjustment we draw the difference to all other classes taken together,
# $\log\frac{1-\pi_y}{\pi_y}$, divided by 15. The formulas are folded: one of them answers exercise
# margin-7.

# %% jupyter={"source_hidden": true}
icbhi_counts = torch.tensor([2063, 1215, 501, 363])
frequency = torch.logspace(-4, math.log10(0.97), 200)
corrections = pd.DataFrame({
    "frequency [%]": 100 * frequency,
    "QLung: added to θ [rad]": -0.2 / math.log(4) * frequency.log(),
    "LDAM: subtracted from cos θ": 0.5 * (frequency / frequency.min()) ** -0.25,
    "logit adjustment / 15: subtracted from cos θ": ((1 - frequency).log() - frequency.log()) / 15,
})  # fmt: skip

# %% jupyter={"source_hidden": true}
fig, ax = plt.subplots(figsize=(7.6, 3.3))
long = corrections.melt("frequency [%]", var_name="correction", value_name="margin")
sns.lineplot(long, x="frequency [%]", y="margin", hue="correction", estimator=None,
             style="correction", palette=["black", GREY, "#AAAAAA"], ax=ax)  # fmt: skip
icbhi_margins = margins.class_margin(icbhi_counts)
shares = 100 * icbhi_counts / icbhi_counts.sum()
for name, share, margin in zip(CLASSES, shares, icbhi_margins, strict=True):
    ax.plot(share, margin, "o", color=COLOUR[name], mec="white", label=f"ICBHI {name}")
ax.axhline(0, color=GREY, lw=0.8)
ax.set(xscale="log", xlabel="class frequency [%]", title="Correction by class frequency")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
figures.save(fig, "03-class-margins", profile, corrections)

# %% [markdown]
# Three different shapes:
#
# - QLung's margin grows by the same angle whenever the class becomes ten times rarer.
# - LDAM's margin is flat and rises for rare classes. Its size is a free choice, here 0.5 for the
#   rarest class.
# - Logit adjustment turns **negative** for a class with more than half of the data. The two margins
#   never do.
#
# **A test on toy data.** We train with 300, 90, 30 and 10 clips per class and test on balanced
# clips, with five seeds. The recall of a class is the share of its clips that get the right class.
# The mean recall weights every class equally.

# %%
IMBALANCED = torch.tensor([300, 90, 30, 10])
log_margin = margins.class_margin(IMBALANCED)
CORRECTED = {
    "no margin": margin_loss(),
    "same margin for all": margin_loss(margin=log_margin.mean()),
    "log-scaled margin": margin_loss(margin=log_margin),
    "LDAM": margin_loss(cosine_margin=margins.root_margin(IMBALANCED)),
    "logit adjustment": margin_loss(added=margins.log_prior(IMBALANCED)),
}


# %%
def recalls(encoder, head, clips):
    """Recall of each class [%]."""
    correct = (head(encoder(clips.x)).argmax(1) == clips.target).float()
    return [100 * float(correct[clips.target == k].mean()) for k in range(4)]


# %%
rows = []
for name, objective in CORRECTED.items():
    for seed in range(5):
        imbalanced = make_clips(IMBALANCED.tolist(), seed=10 + seed)
        rows.append((name, seed, *recalls(*train(objective, imbalanced, 3, seed), held_out)))
recall = pd.DataFrame(rows, columns=["loss", "seed", *CLASSES])
recall["mean recall"] = recall[CLASSES].mean(axis=1)

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"]
fig, ax = plt.subplots(figsize=(8.2, 3.6))
long = recall.melt(["loss", "seed"], var_name="class", value_name="recall")
style = {"data": long, "x": "recall", "y": "loss", "hue": "class", "ax": ax,
         "palette": COLOUR | {"mean recall": BLACK}}  # fmt: skip
sns.stripplot(**style, dodge=True, jitter=False, size=3.5, alpha=0.4, legend=False)
sns.pointplot(**style, dodge=0.64, errorbar=None, linestyle="none", marker="|", markersize=9,
              markeredgewidth=2)  # fmt: skip
ax.set(xlabel="recall on balanced held-out clips [%]", ylabel="",
       title="Toy data (dots: 5 seeds, bar: mean)")  # fmt: skip
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
figures.save(fig, "03-imbalance", profile, recall)

# %% tags=["check", "nbval-ignore-output"]
by_seed = recall.pivot_table(index="seed", columns="loss", values="mean recall")
print("toy data, mean recall [points], difference to no margin")
for name in list(CORRECTED)[1:]:
    print(f"{name:20} {compare(by_seed, name, 'no margin')}")
assert recall["mean recall"].between(25, 100, inclusive="right").all()

# %% [markdown]
# ## 7. Quality-adaptive margins and the QLung loss
#
# Should a clean and a noisy clip get the same margin? A large margin on a noisy clip asks the
# encoder to be certain about noise. Three losses let the quality of a clip set its margin. They
# disagree about the **direction**:
#
# | loss | measure of quality | margin of a better clip |
# |---|---|---|
# | MagFace | length (norm) of the feature | a larger one on the angle |
# | AdaFace | norm, relative to the batch | a **smaller** one on the angle, larger on the cosine |
# | QLung | AQS, computed from the waveform before training | a larger one on the angle |
#
# MagFace also trains the norm. AdaFace lets no gradient through it; its margin on the angle is
# negative for the best clips. We compute the margins of a batch whose clips go from the worst
# quality (0) to the best (1). For QLung we set $\gamma=1$: quality only, no class margin.

# %%
best = torch.linspace(0, 1, 50)
norm = 10 + 100 * best  # feature norms in the same order
nothing = torch.zeros(50)
quality_only = margins.QLungLoss(icbhi_counts, gamma=1.0)
ADAPTIVE = {  # (margin on the angle [rad], margin on the cosine)
    "MagFace": (margins.magface_margin(norm), nothing),
    "AdaFace": margins.adaface_margins(norm),
    "QLung (γ = 1)": (quality_only.margin(torch.zeros(50, dtype=torch.long), best), nothing),
}

# %%
theta = torch.linspace(0.01, math.pi - 0.01, 400)
rows = []
for name, (angle, drop) in ADAPTIVE.items():
    for clip, at in (("worst", 0), ("best", -1)):
        _, gradient = logit_and_gradient(theta, float(angle[at]), 15.0, float(drop[at]))
        columns = {"angle [°]": theta.rad2deg(), "gradient": gradient}
        rows.append(pd.DataFrame({"loss": name, "clip": clip, **columns}))
gradients = pd.concat(rows, ignore_index=True)

# %% jupyter={"source_hidden": true}
fig, axes = plt.subplots(1, 4, figsize=(10.2, 3.4))
palette = dict(zip(ADAPTIVE, (GREEN, ORANGE, BLUE), strict=True))
for name, (angle, _) in ADAPTIVE.items():
    axes[0].plot(best, angle, color=palette[name], lw=2, label=f"{name}, angle [rad]")
axes[0].plot(best, ADAPTIVE["AdaFace"][1], ":", color=ORANGE, label="AdaFace, cosine")
axes[0].set(xlabel="quality (0 worst, 1 best)", ylabel="margin", title="Margin by quality")
for ax, (name, table) in zip(axes[1:], gradients.groupby("loss", sort=False), strict=True):
    sns.lineplot(table, x="angle [°]", y="gradient", style="clip", style_order=["best", "worst"],
                 color=palette[name], estimator=None, legend=False, ax=ax)  # fmt: skip
    ax.set(title=name, xlabel=r"$\theta_y$ [°]", ylabel="", xticks=(0, 60, 120, 180), ylim=(0, 16))
axes[1].set_ylabel(r"gradient $dL/d\theta_y$ [1/rad]")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4,
           title="three panels on the right: best clip (line), worst clip (dashed)")  # fmt: skip
figures.save(fig, "03-quality-margins", profile, gradients)

# %% tags=["check"]
change = {name: float(angle[-1] - angle[0]) for name, (angle, _) in ADAPTIVE.items()}
assert change["MagFace"] > 0 > change["AdaFace"]
assert change["QLung (γ = 1)"] > 0
for name, value in change.items():
    print(f"{name}: the margin on the angle {'rises' if value > 0 else 'falls'} with quality")

# %% [markdown]
# ### The QLung loss
#
# QLung's margin $m_d$ is a weighted mean of two margins: the quality margin
# $m_q=\kappa\cdot\mathrm{AQS}$ and the class margin $m_c$ of section 6. The loss is
# $\mathcal L_{\rm cls}+\lambda\,\mathcal L_{\rm DFAM}$. The first term is the cross-entropy of the
# angular classifier at scale $s_a$, without a margin. The second is the cross-entropy at scale
# $s_d$, with the margin $m_d$ on the target's angle.

# %% [markdown]
# **Exercise margin-8 (QLung's margin).** Compute $m_d$ for every clip.
# [Answer it](exercises/03_exercises.ipynb#margin-8:-QLung's-margin).

# %%
qlung_margin = lessons.answer("margin-8")

# %% [markdown]
# **Exercise margin-9 (QLung loss).** Compute the sum of the two cross-entropies.
# [Answer it](exercises/03_exercises.ipynb#margin-9:-QLung-loss).

# %%
qlung_loss = lessons.answer("margin-9")

# %% [markdown]
# Is that the library's loss? We compare both on random cosines, with the paper's settings.

# %% tags=["check"]
cosine, target, aqs = torch.rand(64, 4) * 2 - 1, torch.randint(4, (64,)), torch.rand(64)
margin = qlung_margin(aqs, log_class_margin(icbhi_counts, 0.2), target, gamma=0.5, kappa=0.5)
by_hand = qlung_loss(cosine, target, margin, scale_cls=37.0, scale_margin=15.0, lam=0.4)
library = margins.QLungLoss(icbhi_counts)(cosine, target, aqs)
assert torch.allclose(by_hand, library, rtol=1e-5)
print("Exercises 7, 8 and 9 together are qlung.margins.QLungLoss with the paper's settings.")

# %% [markdown]
# ### The gradient of the QLung loss
#
# What does a training step do to a clip? We start with two classes, as in the figures above.

# %% [markdown]
# **Exercise margin-10 (gradient in the angle).** There is one other class, with a fixed cosine.
# Compute the gradient $dL/d\theta$ of the cross-entropy.
# [Answer it](exercises/03_exercises.ipynb#margin-10:-gradient-in-the-angle) before you read on: the
# next formula holds for any number of classes.

# %% [markdown]
# For all classes and both terms, the gradient in the feature is
#
# $$\frac{\partial L}{\partial x}=\frac{1}{\lVert x\rVert}
# \bigl(I-\hat x\hat x^\top\bigr)\sum_k g_k\,\hat w_k,\qquad
# g_k=s_a(p_k-1_{k=y})+\lambda s_d\,(q_k-1_{k=y})\,\rho_k,$$
#
# with $\rho_y=\sin(\theta_y+m_d)/\sin\theta_y$ and $\rho_k=1$ for $k\ne y$. Here $g_k=\partial
# L/\partial\cos\theta_k$; $p$ are the softmax probabilities of the first term (no margin), $q$
# those of the second term (with the margin, the probability of exercise 10), $I$ is the identity
# matrix, and $1_{k=y}$ is 1 for the target class and 0 otherwise. [The gradient
# page](../docs/gradient.md) derives it line by line. $\lambda$ is only a weight; $\gamma$ and
# $\kappa$ act through $m_d$. In code:


# %%
def cosine_gradient(cosine, target, margin, scale_cls=37.0, scale_margin=15.0, lam=0.4):
    """g [B, C] of the summed QLung loss, for theta + m < pi."""
    one_hot = F.one_hot(target, cosine.shape[1]).to(cosine.dtype)
    theta = (cosine * one_hot).sum(1).acos()
    rho = 1 + one_hot * ((theta + margin).sin() / theta.sin() - 1)[:, None]
    p = (scale_cls * cosine).softmax(1)
    q = margins.angular_margin_logits(cosine, target, margin, scale_margin).softmax(1)
    return scale_cls * (p - one_hot) + lam * scale_margin * (q - one_hot) * rho


# %%
def feature_gradient(x, prototypes, target, margin):
    """dL/dx [B, d]: the part of g's sum that is perpendicular to x, divided by its length."""
    unit, w = F.normalize(x, dim=1), F.normalize(prototypes, dim=1)
    summed = cosine_gradient(cosines(x, prototypes), target, margin) @ w
    return (summed - (summed * unit).sum(1, keepdim=True) * unit) / x.norm(dim=1, keepdim=True)


# %% [markdown]
# We compare the formula with automatic differentiation (autograd) on 200 random clips.

# %%
x = torch.randn(200, 16, dtype=torch.float64, requires_grad=True)
head, target = margins.AngularClassifier(16, 4).double(), torch.randint(4, (200,))
aqs = torch.rand(200).double()
qlung = margins.QLungLoss(icbhi_counts)
(autograd,) = torch.autograd.grad(200 * qlung(head(x), target, aqs), x)

# %% tags=["check"]
margin = qlung.margin(target, aqs)
formula = feature_gradient(x.detach(), head.prototypes.detach(), target, margin)
assert (autograd - formula).abs().max() < 1e-9
assert ((autograd * x).sum(1).abs() < 1e-9).all()
print("The formula equals autograd on 200 clips; the gradient is perpendicular to every feature.")

# %% [markdown]
# **Which clips does the margin change most?** The gradient in the angle changes with the margin by
# $\lambda s_d(1-q_y)\bigl[\cos(\theta_y+m_d)+s_d\,q_y\sin^2(\theta_y+m_d)\bigr]$. This is the last
# formula of the gradient page. It is large only near the decision boundary
# used in training. There, with one
# other class at cosine 0, $\theta_y+m_d=90°$. We check it with $\lambda=1$.

# %%
theta = torch.linspace(0.05, 2.0, 100, dtype=torch.float64, requires_grad=True)
m_d = torch.full_like(theta, 0.3, requires_grad=True)
target = torch.zeros(100, dtype=torch.long)
cosine = torch.stack([theta.cos(), 0 * theta], 1)
logits = margins.angular_margin_logits(cosine, target, m_d, 15.0)
loss = F.cross_entropy(logits, target, reduction="sum")
(slope,) = torch.autograd.grad(loss, theta, create_graph=True)
(response,) = torch.autograd.grad(slope.sum(), m_d)

# %% tags=["check"]
q, phi = logits.softmax(1)[:, 0].detach(), (theta + m_d).detach()
assert torch.allclose(response, 15 * (1 - q) * (phi.cos() + 15 * q * phi.sin() ** 2))
strongest = float(phi[response.argmax()].rad2deg())
assert abs(strongest - 90) < 2
print(f"The margin changes the gradient most at θ + m = {strongest:.0f}°; the boundary is at 90°.")

# %% [markdown]
# ## 8. Feature norm as a measure of quality
#
# Is the length of a feature a measure of quality, as MagFace and AdaFace assume? On toy data we
# know the SNR of every clip. We compute the rank correlation (Spearman's $\rho$) between the norm
# of a held-out clip's feature and its SNR. Two controls are needed:
#
# - **within classes**: the features of some classes are longer than those of others, so we
#   correlate within each class and average;
# - **equal loudness**: noise also makes a clip louder, so we repeat everything with clips scaled to
#   the same loudness.
#
# MagFace needs a smallest and a largest norm; we choose them for this small encoder.


# %%
def magface(features, cosine, prototypes, clips):
    """MagFace: the margin rises with the norm, and a penalty asks for long features."""
    norm, bounds = features.norm(dim=1), (5.0, 25.0)
    margin = margins.magface_margin(norm, bounds)
    logits = margins.angular_margin_logits(cosine, clips.target, margin, 15.0)
    return F.cross_entropy(logits, clips.target) + 20 * margins.magface_penalty(norm, bounds).mean()


def adaface(features, cosine, prototypes, clips):
    """AdaFace: margins from the norm relative to the batch."""
    angle, drop = margins.adaface_margins(features.norm(dim=1))
    logits = margins.angular_margin_logits(cosine, clips.target, angle, 15.0, drop)
    return F.cross_entropy(logits, clips.target)


# %% [markdown]
# The 95 % interval over clips uses Fisher's z-transformation.


# %%
def rank_correlation(norm, clips):
    """Spearman's rho averaged within classes, with its 95 % interval: (rho, low, high)."""
    z, variance = [], []
    for k in range(4):
        mine = clips.target == k
        rho = stats.spearmanr(norm[mine], clips.snr[mine])[0]
        z.append(math.atanh(rho))
        variance.append((1 + rho**2 / 2) / (int(mine.sum()) - 3))
    mean, half = np.mean(z), 1.96 * math.sqrt(sum(variance)) / 4
    return math.tanh(mean), math.tanh(mean - half), math.tanh(mean + half)


# %%
def equal_loudness(clips):
    """The same clips, all of length 1."""
    return clips._replace(x=F.normalize(clips.x, dim=1))


NORM_LOSSES = {name: LOSSES[name] for name in ("linear softmax", "normalised", "QLung")}
NORM_LOSSES |= {"AdaFace": adaface, "MagFace": magface}

# %%
rows = []
for kind, prepare in {"original": lambda clips: clips, "equal loudness": equal_loudness}.items():
    clips = prepare(held_out)
    for name, objective in NORM_LOSSES.items():
        for seed in range(3):
            encoder, _ = train(objective, prepare(training), 3, seed)
            norm = encoder(clips.x).detach().norm(dim=1)
            rows.append((kind, name, seed, *rank_correlation(norm, clips)))
loudness = rank_correlation(held_out.x.norm(dim=1), held_out)
rows.append(("original", "loudness of the clip itself", 0, *loudness))
norms = pd.DataFrame(rows, columns=["clips", "loss", "seed", "rho", "low", "high"])

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"]
fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.9))
for ax, (kind, table) in zip(axes, norms.groupby("clips", sort=False), strict=True):
    labels = table["loss"].where(~table["loss"].duplicated(), "")
    figures.intervals(ax, table, labels, value="rho")
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set(title=f"Toy clips, {kind} (3 seeds per loss)", xlim=(-0.8, 0.8), xticks=(-0.5, 0, 0.5),
           xlabel=r"$\rho$ of norm and SNR, per seed, within classes")  # fmt: skip
figures.save(fig, "03-norm-is-quality", profile, norms)

# %% tags=["check", "nbval-ignore-output"]
print("toy data, Spearman's rho of feature norm and SNR over three seeds")
for (kind, name), table in norms.groupby(["clips", "loss"], sort=False):
    rises, falls = (table["low"] > 0).all(), (table["high"] < 0).all()
    verdict = "rises with SNR" if rises else "falls with SNR" if falls else "no reliable relation"
    span = f"{table['rho'].min():+.2f} to {table['rho'].max():+.2f}"
    print(f"{kind:14} {name:27} {span}: {verdict}")
assert norms.loc[norms["loss"].str.startswith("loudness"), "high"].item() < 0

# %% [markdown]
# ## 9. Playground: two classes
#
# What does each number of the loss do? There are two classes, with prototypes at 0° (common) and
# 90° (rare). Move a slider, or type a value, and watch three panels:
#
# - **Force**: the gradient of the loss in the angle, $dL/d\theta_y$, at each angle. Solid: the
#   whole loss; dashed: the part of the margin loss; dotted: the loss without a margin.
# - **Margin**: the class part (dark; tiny for the common class) and the quality part (pale).
# - **Boundaries**: clips on the coloured arcs satisfy the margin; in the grey gap no clip does. At
#   inference the boundary is at 45°, always.
#
# The paper's $\gamma=\kappa=0.5$ are fixed. The board is a small script in this page: it needs no
# kernel. JupyterLab runs it in notebooks that it trusts (`make lab` sees to that; else choose
# *Trust Notebook* in the command palette). [Its own page](../docs/playground.md) has it, too, and
# keeps the values in its address.

# %% jupyter={"source_hidden": true}
script = (paths.ROOT / "docs" / "_static" / "playground.js").read_text(encoding="utf-8")
HTML(f'<div data-qlung-board="margins">This board needs JavaScript.</div>\n<script>{script}</script>')

# %% [markdown]
# The same forces in Python, of the margin loss:

# %%
ANGLES = torch.linspace(1e-3, math.pi / 2, 181)


def two_classes(scale, target, imbalance, aqs):
    """Gradient [181, 1/rad] per class."""
    qlung = margins.QLungLoss([imbalance, 1.0], target=target)
    both, rows = qlung.margin(torch.arange(2), torch.full((2,), aqs)), {}
    for name, margin in zip(("common", "rare"), both.tolist(), strict=True):
        _, rows[name] = logit_and_gradient(ANGLES, margin, scale, other=torch.sin)
    return rows


# %% [markdown]
# From which angle on is a clip moved? We take the first angle at which the gradient exceeds half
# the scale, for the worst and the best quality.

# %% tags=["check"]
start = {}
for aqs in (0.0, 1.0):
    for name, gradient in two_classes(15.0, 0.2, 6.0, aqs).items():
        start[name, aqs] = float(ANGLES[gradient > 0.5 * 15].min())
assert start["common", 1.0] < start["common", 0.0]
assert start["rare", 1.0] < start["rare", 0.0] < start["common", 0.0]
print("A clip of better quality is moved from a smaller angle on, in both classes.")
print("A clip of the rare class is moved from a smaller angle on than one of the common class.")

# %% [markdown]
# ## What we found
#
# - **The geometry holds exactly.** Normalised losses only turn a feature. The scale decides at
#   which angles the loss has a gradient; with four classes it doesn't limit the probability. A
#   margin moves the gradient to smaller angles. The loss built here equals the library's, and the
#   formula for its gradient equals autograd.
# - **The formula is easy to get wrong.** Each of the five other versions of ArcFace has at least
#   one fault: NaN on the prototype, a jump, a larger logit for a larger angle, or a gradient that
#   is not its derivative. You may not notice it in a training curve.
# - **On toy data the scale matters more than the margin.** At a scale of 4.3 the classes are well
#   separated. At 64 a few degrees satisfy the loss, and nothing moves the classes further apart.
# - **The promises of margins are hard to confirm there.** With five seeds, most intervals for
#   compactness, separation and accuracy (section 5) and for mean recall (section 6) contain zero.
#   The printed lines show which do not. This limits what a toy experiment can show; it is no
#   verdict on respiratory sounds. Notebooks 05 and 08 test the claims on recordings.
# - **The feature norm alone is not quality.** Noise makes a toy clip louder. With the original
#   loudness, no loss has a norm that reliably rises with SNR. At equal loudness it rises with SNR
#   for most losses, but weakly; most clearly for the linear softmax. A score computed from the
#   waveform avoids this problem and has others: see notebook 02.
#
# ## Try next
#
# - Set the scale in `margin_loss` to 2 and to 64. Look at the circle and the sphere again.
# - Start the circle from random prototypes: delete the two lines with `if dim == 2` and `RING`.
#   How often do two prototypes end up at the same place?
# - Invert the quality in `qlung_objective` (`1 - quality(...)`). Does held-out accuracy change?
# - Give AdaFace the true quality instead of the norm. Which direction of the margin helps the noisy
#   half of the clips?
# - Open [exercises/03_exercises.ipynb](exercises/03_exercises.ipynb) and build the loss yourself.
#
# [Previous: Measure quality](02_measure_quality.ipynb) · [Next: Train](04_train.ipynb) ·
# [Glossary](../docs/glossary.md) · [All results](../RESULTS.md)
