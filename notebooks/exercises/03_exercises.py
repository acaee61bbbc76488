# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,-kernelspec,-jupytext.text_representation
# ---

# %% [markdown]
# # Practise: angular margins and operating points
#
# Answer each exercise by hand, with a number, or in code, with a function; either one counts as
# solved. On the web site a number can be typed into the page. A number is right if it is correctly
# rounded to two or more significant digits, or to as many as the question asks for.
#
# The check says what is wrong. If that is not enough, `lessons.hint("margin-1", 1)` says which step
# is next, `lessons.hint("margin-1", 2)` gives the formula, and `lessons.answer("margin-1")` the
# worked answer.
#
# Work in your own copy, `notebooks/exercises/mine/03_exercises.ipynb`: `make lab` makes it, nothing
# overwrites it, and what you have solved is remembered beside it.

# %%
# ruff: noqa: F401 (your answers use them, the stubs do not)
import math

import torch
from torch.nn import functional as F

from qlung import margins
from qlung.book import lessons

torch.set_num_threads(1)  # the tensors here are small

# %% [markdown]
# ## margin-1: angular classifier
#
# A linear classifier gives class $k$ the score $w_k^\top x=\lVert w_k\rVert\,\lVert
# x\rVert\cos\theta_k$. Division by both lengths leaves $\cos\theta_k$: only the direction of the
# feature $x$ and of the prototype $w_k$ counts. Derived in [section
# 1](../03_learn_angular_margins.ipynb#1.-Normalised-softmax:-the-angular-classifier).
#
# **By hand.** A feature is (3, 4), a prototype is (−1, 1). What is the cosine of the angle between
# them?

# %%
lessons.check("margin-1", ...)  # your number in place of the dots


# %% [markdown]
# **In code.** Compute the cosine between every feature of a batch and every prototype.

# %%
def cosines(features, prototypes):
    """Cosine of every feature [B, d] to every prototype [C, d]: [B, C]."""
    ...  # your code


# %%
lessons.check("margin-1", cosines)

# %% [markdown]
# ## margin-2: best probability
#
# A softmax over logits $s\cos\theta_k$ compares exponentials: $p_y=e^{s\cos\theta_y}/\sum_k
# e^{s\cos\theta_k}$. The best possible clip has cosine 1 to its own prototype and $-1/(C-1)$ to
# each of the others: $C$ directions cannot spread further apart. Derived in [section
# 2](../03_learn_angular_margins.ipynb#2.-Scale-of-the-cosines).
#
# **By hand.** Which probability does the best possible clip reach at scale 2 with four classes?
# Give three digits.

# %%
lessons.check("margin-2", ...)  # your number in place of the dots


# %% [markdown]
# **In code.** Compute the probability that the best possible clip reaches, at scale $s$ with $C$
# classes.

# %%
def reachable_probability(scale, n_classes):
    """Softmax probability of cosine 1 against C - 1 cosines of -1 / (C - 1)."""
    ...  # your code


# %%
lessons.check("margin-2", reachable_probability)

# %% [markdown]
# ## margin-3: smallest scale
#
# The odds $p/(1-p)$ of a softmax are easier to solve for than its probability. They are the
# exponential of the right class over the sum of the others:
# $\frac{p}{1-p}=e^{s\cos\theta_y}\big/\sum_{j\ne y}e^{s\cos\theta_j}$. See [section
# 2](../03_learn_angular_margins.ipynb#2.-Scale-of-the-cosines).
#
# **By hand.** At which scale does the best possible clip of margin-2 reach 95 % with ten classes?

# %%
lessons.check("margin-3", ...)  # your number in place of the dots


# %% [markdown]
# **In code.** Compute the scale at which the best possible clip of margin-2 reaches a probability.

# %%
def smallest_scale(probability, n_classes):
    """The scale at which the best possible clip reaches a probability."""
    ...  # your code


# %%
lessons.check("margin-3", smallest_scale)

# %% [markdown]
# ## margin-4: ArcFace
#
# ArcFace adds the margin to the angle before the cosine is taken: the target logit is
# $s\cos(\theta_y+m)$, with $\theta_y=\arccos$ of the cosine and $m$ in radians. CosFace subtracts
# it from the cosine instead. See [section
# 3](../03_learn_angular_margins.ipynb#3.-Additive-margins:-CosFace-(cosine)-and-ArcFace-(angle)).
#
# **By hand.** The cosine is 0.5, the margin 0.3 rad, the scale 15. What is the target logit?

# %%
lessons.check("margin-4", ...)  # your number in place of the dots


# %% [markdown]
# **In code.** Compute ArcFace's target logit, for $\theta + m \le \pi$.

# %%
def arcface_logit(cosine, margin, scale):
    """scale * cos(theta + margin), for the cosine [B] of theta."""
    ...  # your code


# %%
lessons.check("margin-4", arcface_logit)

# %% [markdown]
# ## margin-5: all logits
#
# Only the target class is made harder: its logit is $s\cos(\theta_y+m)$, all others are
# $s\cos\theta_j$ with the same scale. A margin on every class would nearly cancel, because a
# softmax compares logits. See [section
# 3](../03_learn_angular_margins.ipynb#3.-Additive-margins:-CosFace-(cosine)-and-ArcFace-(angle)).
#
# **By hand.** One clip has the cosines 0.6, 0.1, −0.3 and 0.2; its class is the first. The margin
# is 0.3 rad, the scale 15. By how much is the target's logit larger than the largest other one?

# %%
lessons.check("margin-5", ...)  # your number in place of the dots


# %% [markdown]
# **In code.** Compute all logits of a batch. Only the target class gets the margin; every class
# gets the scale.

# %%
def margin_logits(cosine, target, margin, scale):
    """Logits [B, C] from cosines [B, C], classes [B], a margin [rad] and a scale."""
    ...  # your code


# %%
lessons.check("margin-5", margin_logits)

# %% [markdown]
# ## margin-6: inference
#
# At inference the true class of a clip is unknown. The class is that of the nearest prototype:
# $\hat y=\arg\max_k\cos\theta_k$. See [section
# 3](../03_learn_angular_margins.ipynb#3.-Additive-margins:-CosFace-(cosine)-and-ArcFace-(angle)).
#
# **By hand.** Classes 0 to 3 have margins of 0.10, 0.18, 0.30 and 0.35 rad. A clip has the cosines
# 0.50, 0.53, 0.10 and 0.52. Which class does it get?

# %%
lessons.check("margin-6", ...)  # your number in place of the dots


# %% [markdown]
# **In code.** Predict the class of clips whose true class is unknown. You get everything that
# training used. Use only what you need.

# %%
def predict(cosine, class_margin, scale):
    """Class index [B] from cosines [B, C]."""
    ...  # your code


# %%
lessons.check("margin-6", predict)

# %% [markdown]
# ## margin-7: class margin
#
# A class with $n_y$ of the $N$ training clips has the frequency $\pi_y=n_y/N$. QLung gives it the
# log-scaled margin $m_c=-m_{\rm target}\,\log\pi_y/\log C$: the rarer the class, the larger the
# angle. See [section 6](../03_learn_angular_margins.ipynb#6.-Class-margins-for-imbalanced-data).
#
# **By hand.** Four classes have 800, 400, 200 and 100 training clips; the target is 0.2 rad. Which
# margin does the rarest class get?

# %%
lessons.check("margin-7", ...)  # your number [rad] in place of the dots


# %% [markdown]
# **In code.** Compute the log-scaled class margin of every class. `target` is the angle $m_{\rm
# target}$, not the true class of a clip. Which margin does a class with frequency $1/C$ get?

# %%
def log_class_margin(counts, target):
    """Margin [C, rad] from clips per class [C]; a balanced class gets `target`."""
    ...  # your code


# %%
lessons.check("margin-7", log_class_margin)

# %% [markdown]
# ## margin-8: QLung's margin
#
# QLung's margin is a weighted mean of the quality margin and of the class margin:
# $m_d=\gamma\,\kappa\,\mathrm{AQS}+(1-\gamma)\,m_c(y)$. AQS is the audio-quality score of the clip
# in [0, 1] ([notebook 02](../02_measure_quality.ipynb)), $y$ its class. See [section
# 7](../03_learn_angular_margins.ipynb#7.-Quality-adaptive-margins-and-the-QLung-loss).
#
# **By hand.** The class margins are 0.10, 0.18, 0.30 and 0.35 rad. A clip of the last class has AQS
# 0.9; γ = 0.3 and κ = 0.5. Which margin does it get?

# %%
lessons.check("margin-8", ...)  # your number [rad] in place of the dots


# %% [markdown]
# **In code.** Compute $m_d$ for every clip.

# %%
def qlung_margin(aqs, class_margin, target, gamma, kappa):
    """m_d [B, rad] from quality [B], class margins [C, rad] and classes [B]."""
    ...  # your code


# %%
lessons.check("margin-8", qlung_margin)

# %% [markdown]
# ## margin-9: QLung loss
#
# The loss is $\mathcal L_{\rm cls}+\lambda\,\mathcal L_{\rm DFAM}$, two cross-entropies on the same
# cosines: one without a margin at scale $s_a$ (`scale_cls`), one with the margin $m_d$ on the
# target's angle at scale $s_d$ (`scale_margin`). Cross-entropy is $-\ln$ of the probability of the
# true class. See [section 7](../03_learn_angular_margins.ipynb#The-QLung-loss).
#
# **By hand.** There are two classes. A clip of the first has the cosines 0.5 and 0.2 and a margin
# of 0.4 rad. The scales are 6 (classifier) and 3 (margin loss), λ = 0.5. What is the loss?

# %%
lessons.check("margin-9", ...)  # your number in place of the dots


# %% [markdown]
# **In code.** Add the two cross-entropies, the second one times $\lambda$.
# `margins.angular_margin_logits` and `F.cross_entropy` are at hand.

# %%
def qlung_loss(cosine, target, margin, scale_cls, scale_margin, lam):
    """Scalar loss from cosines [B, C], classes [B] and margins [B, rad]."""
    ...  # your code


# %%
lessons.check("margin-9", qlung_loss)

# %% [markdown]
# ## margin-10: gradient in the angle
#
# There is one other class. Its logit is $s\cdot$`other`, where `other` is a fixed cosine; the
# target's logit is $s\cos(\theta+m)$. The loss is $L=-\ln q$, with
# $q=\sigma\bigl(s\cos(\theta+m)-s\cdot{}$`other`$\bigr)$ the probability of the target. See
# [section 7](../03_learn_angular_margins.ipynb#The-gradient-of-the-QLung-loss).
#
# **By hand.** The angle is 1 rad, the margin 0.4 rad, the scale 10, the other cosine 0.1. What is
# the gradient?

# %%
lessons.check("margin-10", ...)  # your number [1/rad] in place of the dots


# %% [markdown]
# **In code.** Compute the gradient $dL/d\theta$ of the cross-entropy.

# %%
def angle_gradient(theta, margin, scale, other):
    """dL/dtheta [B, 1/rad] of the two-class loss at angles theta [B, rad]."""
    ...  # your code


# %%
lessons.check("margin-10", angle_gradient)

# %% [markdown]
# ## operating-1: equal Scores, different order
#
# A network orders clips by their odds of being abnormal, and calls abnormal what lies above a line.
# Sp is the share of normal clips below the line, Se the share of abnormal clips above it *whose
# class is right*, and the Score is $(\mathrm{Sp}+\mathrm{Se})/2$. The line can be moved; the order
# cannot. See [Operating points in notebook 06](../06_evaluate_icbhi.ipynb#Operating-points).
#
# **By hand.** Two methods call abnormal what has odds above 1. Both have a Score of 57.5.
#
# | clip | class | if called abnormal | odds of A | odds of B |
# | --- | --- | --- | --- | --- |
# | 1 | normal | crackle | 0.1 | 0.1 |
# | 2 | normal | crackle | 0.5 | 0.4 |
# | 3 | normal | wheeze | 1.5 | 1.2 |
# | 4 | normal | crackle | 3 | 1.5 |
# | 5 | normal | wheeze | 8 | 9 |
# | 6 | crackle | crackle | 1.2 | 2 |
# | 7 | crackle | crackle | 2 | 3 |
# | 8 | wheeze | wheeze | 4 | 5 |
# | 9 | both | wheeze | 0.2 | 0.2 |
#
# By how many points is the best Score of B, over all lines, higher than the best Score of A?

# %%
lessons.check("operating-1", ...)  # your number [points] in place of the dots


# %% [markdown]
# **In code.** Find the best Score over all lines. `label` and `kind` are the true class and the
# most probable abnormal class of each clip (0 normal, 1 crackle, 2 wheeze, 3 both).

# %%
def best_score(label, odds, kind):
    """Best Score [%] over all lines, from true classes, odds and abnormal classes [N]."""
    ...  # your code


# %%
lessons.check("operating-1", best_score)

# %% [markdown]
# How many are solved, today and before:

# %%
lessons.progress()
