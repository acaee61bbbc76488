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
from qlung.book import lessons

torch.set_num_threads(1)  # the tensors here are small


# %% [markdown]
# **Exercise margin-1 (angular classifier).** Compute the cosine between every feature of a batch
# and every prototype.

# %%
def cosines(features, prototypes):
    """Cosine of every feature [B, d] to every prototype [C, d]: [B, C]."""
    ...  # your code


# %%
lessons.check("margin-1", cosines)


# %% [markdown]
# **Exercise margin-2 (best probability).** Which probability does the best possible clip reach, at
# scale $s$ with $C$ classes? Its cosine is 1 to its own prototype and $-1/(C-1)$ to the others.

# %%
def reachable_probability(scale, n_classes):
    """Softmax probability of cosine 1 against C - 1 cosines of -1 / (C - 1)."""
    ...  # your code


# %%
lessons.check("margin-2", reachable_probability)

# %% [markdown]
# **Exercise margin-3 (smallest scale).** At which scale does the best possible clip reach 99 % with
# four classes? Give the number.

# %%
scale_needed = ...  # your answer

# %%
lessons.check("margin-3", scale_needed)


# %% [markdown]
# **Exercise margin-4 (ArcFace).** Compute ArcFace's target logit, for $\theta + m \le \pi$. The
# margin $m$ is in radians.

# %%
def arcface_logit(cosine, margin, scale):
    """scale * cos(theta + margin), for the cosine [B] of theta."""
    ...  # your code


# %%
lessons.check("margin-4", arcface_logit)


# %% [markdown]
# **Exercise margin-5 (all logits).** Compute all logits of a batch. Only the target class gets the
# margin; every class gets the scale.

# %%
def margin_logits(cosine, target, margin, scale):
    """Logits [B, C] from cosines [B, C], classes [B], a margin [rad] and a scale."""
    ...  # your code


# %%
lessons.check("margin-5", margin_logits)


# %% [markdown]
# **Exercise margin-6 (inference).** Predict the class of clips whose true class is unknown. You get
# everything that training used. Use only what you need.

# %%
def predict(cosine, class_margin, scale):
    """Class index [B] from cosines [B, C]."""
    ...  # your code


# %%
lessons.check("margin-6", predict)


# %% [markdown]
# **Exercise margin-7 (class margin).** Compute the log-scaled class margin: minus the logarithm of
# the class frequency, times `target`, divided by $\log C$. Here `target` is the angle $m_{\rm
# target}$ of the table above, not the true class of a clip. Which margin does a class with
# frequency $1/C$ get?

# %%
def log_class_margin(counts, target):
    """Margin [C, rad] from clips per class [C]; a balanced class gets `target`."""
    ...  # your code


# %%
lessons.check("margin-7", log_class_margin)


# %% [markdown]
# **Exercise margin-8 (QLung's margin).** Compute
# $m_d=\gamma\,\kappa\,\mathrm{AQS}+(1-\gamma)\,m_c(y)$ for every clip. AQS is its audio-quality
# score, $y$ its class.

# %%
def qlung_margin(aqs, class_margin, target, gamma, kappa):
    """m_d [B, rad] from quality [B], class margins [C, rad] and classes [B]."""
    ...  # your code


# %%
lessons.check("margin-8", qlung_margin)


# %% [markdown]
# **Exercise margin-9 (QLung loss).** Add two cross-entropies on the same cosines: one without a
# margin at scale `scale_cls`, plus $\lambda$ times one with the margin at scale `scale_margin`.

# %%
def qlung_loss(cosine, target, margin, scale_cls, scale_margin, lam):
    """Scalar loss from cosines [B, C], classes [B] and margins [B, rad]."""
    ...  # your code


# %%
lessons.check("margin-9", qlung_loss)


# %% [markdown]
# **Exercise margin-10 (gradient in the angle).** There is one other class. Its logit is
# $s\cdot$`other`, where `other` is a fixed cosine; the target's logit is $s\cos(\theta+m)$. Compute
# the gradient $dL/d\theta$ of the cross-entropy.

# %%
def angle_gradient(theta, margin, scale, other):
    """dL/dtheta [B, 1/rad] of the two-class loss at angles theta [B, rad]."""
    ...  # your code


# %%
lessons.check("margin-10", angle_gradient)
