# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,-kernelspec,-jupytext.text_representation
# ---

# %% [markdown]
# # Practise: learn angular margins
#
# Replace each `...`, run the cell below it and read what it says.
# Work in your own copy, `notebooks/exercises/mine/03_exercises.ipynb`: `make lab` makes it, nothing overwrites it.
# Worked answers are in `03_learn_angular_margins.ipynb`, from which this notebook is made.

# %%
# ruff: noqa: F401 (your answers use them, the stubs do not)
import math

import torch
from torch.nn import functional as F

from qlung import margins
from qlung.book import figures, lessons

_ = torch.manual_seed(0)


# %% [markdown]
# **Exercise margin-1.** Write the angular classifier: all cosines between a batch of features and the prototypes.

# %%
def cosines(features, prototypes):
    """Cosine of every feature [B, d] to every prototype [C, d]: [B, C]."""
    ...  # your code


# %%
lessons.check("margin-1", cosines)


# %% [markdown]
# **Exercise margin-2.** Which probability can a perfect clip reach, at scale $s$ with $C$ classes?

# %%
def reachable_probability(scale, n_classes):
    """Softmax probability of cosine 1 against C - 1 cosines of -1 / (C - 1)."""
    ...  # your code


# %%
lessons.check("margin-2", reachable_probability)

# %% [markdown]
# **Exercise margin-3.** Which scale lets a perfect clip reach 99 % with four classes? Give the number.

# %%
scale_needed = ...  # your answer

# %%
lessons.check("margin-3", scale_needed)


# %% [markdown]
# **Exercise margin-4.** ArcFace's target logit, for $\theta + m \le \pi$. The margin is in radians.

# %%
def arcface_logit(cosine, margin, scale):
    """scale * cos(theta + margin), for the cosine [B] of theta."""
    ...  # your code


# %%
lessons.check("margin-4", arcface_logit)


# %% [markdown]
# **Exercise margin-5.** All logits of a batch: the margin goes on the true class, the scale on every class.

# %%
def margin_logits(cosine, target, margin, scale):
    """Logits [B, C] from cosines [B, C], classes [B], a margin [rad] and a scale."""
    ...  # your code


# %%
lessons.check("margin-5", margin_logits)


# %% [markdown]
# **Exercise margin-6.** Predict the class of clips whose target you don't know. Everything training used is passed in;
# use what you need.

# %%
def predict(cosine, class_margin, scale):
    """Class index [B] from cosines [B, C]."""
    ...  # your code


# %%
lessons.check("margin-6", predict)


# %% [markdown]
# **Exercise margin-7.** The log-scaled class margin. What does a class with frequency $1/C$ get?

# %%
def log_class_margin(counts, target):
    """Margin [C, rad] from clips per class [C]; a balanced class gets `target`."""
    ...  # your code


# %%
lessons.check("margin-7", log_class_margin)


# %% [markdown]
# **Exercise margin-8.** QLung's margin of each clip, from its quality and its class.

# %%
def qlung_margin(aqs, class_margin, target, gamma, kappa):
    """m_d [B, rad] from quality [B], class margins [C, rad] and classes [B]."""
    ...  # your code


# %%
lessons.check("margin-8", qlung_margin)


# %% [markdown]
# **Exercise margin-9.** The whole loss: cross-entropy without a margin at one scale, plus $\lambda$ times
# cross-entropy with the margin at another, on the same cosines.

# %%
def qlung_loss(cosine, target, margin, scale_cls, scale_margin, lam):
    """Scalar loss from cosines [B, C], classes [B] and margins [B, rad]."""
    ...  # your code


# %%
lessons.check("margin-9", qlung_loss)


# %% [markdown]
# **Exercise margin-10.** How hard is a clip pulled? With one other class whose cosine stays at `other`, give
# $dL/d\theta$ for the logit $s\cos(\theta+m)$.

# %%
def pull_on_angle(theta, margin, scale, other):
    """Slope dL/dtheta [B] of the two-class loss at angles theta [B, rad]."""
    ...  # your code


# %%
lessons.check("margin-10", pull_on_angle)
