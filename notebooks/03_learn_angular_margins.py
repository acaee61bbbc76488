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
# **You will hold:** the QLung loss, built by hand from a softmax in ten small steps, each answer checked as you type,
# and know what every number in it does to the gradient, and which of its promises a toy experiment keeps.
#
# **Stands for:** the paper's method section (angular classifier, $\mathcal L_{\rm DFAM}$, quality margin, log-scaled
# class margin). No table of results is judged here: everything below is geometry, or toy data whose truth we know.
#
# **Costs:** under a minute on one core, on every profile; no data, no network, no GPU. As a class: 90 minutes.
#
# | minutes | step | exercises |
# |---|---|---|
# | 10 | 1. Put the softmax on a sphere | 1 |
# | 10 | 2. Choose the scale | 2, 3 |
# | 20 | 3. Add a margin: to the cosine or to the angle | 4, 5, 6 |
# | 10 | 4. Break six ArcFaces | |
# | 15 | 5. Train on a circle and on a sphere | |
# | 10 | 6. Give rare classes more room | 7 |
# | 15 | 7. Let quality decide; assemble QLung; is the norm quality? | 8, 9, 10 |
#
# To practise, open `exercises/03_exercises.ipynb`: the same cells with the answers taken out.

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""

# %% tags=["exercise"]
import math

import torch
from torch.nn import functional as F

from qlung import margins
from qlung.book import figures, lessons

_ = torch.manual_seed(0)

# %%
import io

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats
from torch import nn

figures.use_style()
torch.set_num_threads(1)  # toy tensors: two threads would mostly wait for each other
pd.set_option("display.width", 140)
COLOUR = figures.CLASS_COLOURS
NAMES = list(COLOUR)
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = plt.rcParams["axes.prop_cycle"].by_key()["color"]

# %% [markdown]
# ## 1. Put the softmax on a sphere
#
# A linear classifier scores class $k$ with $w_k^\top x = \lVert w_k\rVert\,\lVert x\rVert\cos\theta_k$. Training can
# lower its loss in three ways: **turn** $x$ towards $w_y$, make $x$ **longer**, make $w_y$ **longer**. The last two say
# nothing new about the clip. Dividing both lengths out leaves the angle:
#
# $$z_k=\cos\theta_k=\hat w_k^\top\hat x,\qquad \hat x=x/\lVert x\rVert,\quad \hat w_k=w_k/\lVert w_k\rVert .$$
#
# Below, the force $-\nabla_x L$ on a clip of class *wheeze*, wherever its feature may lie. The linear softmax pushes
# outwards for ever; on the sphere every arrow is a rotation, and it is weaker far out, as $1/\lVert x\rVert$.


# %%
PROTOTYPES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-0.8, 0.6], [0.0, -1.0]])


def force(points, logits_of, target):
    """-dL/dx of each point [N, 2] for a clip of class `target`."""
    x = points.clone().requires_grad_()
    logits = logits_of(x, torch.full((len(x),), target))
    F.cross_entropy(logits, torch.full((len(x),), target), reduction="sum").backward()
    return -x.grad


FIELDS = {
    "linear softmax": lambda x, y: x @ PROTOTYPES.T,
    "normalised, s = 4": lambda x, y: 4 * F.normalize(x, dim=1) @ PROTOTYPES.T,
    "ArcFace, s = 4, m = 0.5 rad": lambda x, y: margins.angular_margin_logits(
        F.normalize(x, dim=1) @ PROTOTYPES.T, y, 0.5, 4.0
    ),
}

# %%
axis = torch.linspace(-1.8, 1.8, 13)
points = torch.cartesian_prod(axis, axis)
points = points[points.norm(dim=1) > 0.35]
fields = {name: force(points, logits_of, target=2) for name, logits_of in FIELDS.items()}
fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.7), sharex=True, sharey=True)
for ax, (name, field) in zip(axes, fields.items(), strict=True):
    size = field.norm(dim=1)
    arrows = ax.quiver(*points.T, *(field / size[:, None]).T, size, cmap="viridis_r", scale=19, width=0.008)
    arrows.set_clim(0, 3)
    _ = ax.add_patch(plt.Circle((0, 0), 1, fill=False, color="#999999", lw=0.8))
    for k, w in enumerate(PROTOTYPES):
        _ = ax.plot(*zip((0, 0), w.tolist(), strict=True), color=COLOUR[NAMES[k]], lw=3, label=NAMES[k])
    ax.set(title=name, xlabel="feature $x_1$", aspect="equal")
    ax.grid(False)
axes[0].set_ylabel("feature $x_2$")
_ = fig.colorbar(arrows, ax=axes, label=r"force $\Vert\nabla_x L\Vert$", shrink=0.8)
_ = fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, title="prototypes")
table = pd.concat([pd.DataFrame({"loss": n, "x1": points[:, 0], "x2": points[:, 1], "f1": f[:, 0], "f2": f[:, 1]})
                   for n, f in fields.items()])  # fmt: skip
figures.save(fig, "03-force-fields", profile, table)

# %% tags=["check"]
radial = {name: float((F.normalize(points, dim=1) * field).sum(1).abs().max()) for name, field in fields.items()}
assert radial["linear softmax"] > 0.5
assert max(value for name, value in radial.items() if name != "linear softmax") < 1e-5
print("Only the linear softmax pushes along the radius; the normalised losses only turn.")

# %% [markdown] tags=["exercise"]
# **Exercise margin-1.** Write the angular classifier: all cosines between a batch of features and the prototypes.


# %% tags=["exercise", "solution"]
def cosines(features, prototypes):
    """Cosine of every feature [B, d] to every prototype [C, d]: [B, C]."""
    return F.normalize(features, dim=1) @ F.normalize(prototypes, dim=1).T


# %% tags=["exercise"]
lessons.check("margin-1", cosines)

# %% [markdown]
# ## 2. Choose the scale
#
# Cosines lie in $[-1, 1]$, so a softmax over them alone stays blurred: even a perfect clip, at cosine 1 to its own
# prototype and $-1/(C-1)$ to all others (the furthest $C$ directions can spread), keeps losing. The logits need a
# scale $s$, an inverse temperature.

# %% [markdown] tags=["exercise"]
# **Exercise margin-2.** Which probability can a perfect clip reach, at scale $s$ with $C$ classes?


# %% tags=["exercise", "solution"]
def reachable_probability(scale, n_classes):
    """Softmax probability of cosine 1 against C - 1 cosines of -1 / (C - 1)."""
    return 1 / (1 + (n_classes - 1) * math.exp(-scale * n_classes / (n_classes - 1)))


# %% tags=["exercise"]
lessons.check("margin-2", reachable_probability)

# %% [markdown] tags=["exercise"]
# **Exercise margin-3.** Which scale lets a perfect clip reach 99 % with four classes? Give the number.

# %% tags=["exercise", "solution"]
scale_needed = (3 / 4) * math.log(3 * 0.99 / 0.01)

# %% tags=["exercise"]
lessons.check("margin-3", scale_needed)

# %% [markdown]
# The scale does a second thing, and it matters more. Right: the slope of the loss against the angle, for a clip
# between its own prototype and one other at 90°. A small scale pulls everywhere; a large one only where the decision is
# still open, like a support vector machine. That is what separates $s_a=37$ from $s_d=15$: with four classes both can
# reach any probability, so bounds made for thousands of faces (64) do not carry over.

# %%
scales = np.geomspace(0.3, 100, 200)
theta = torch.linspace(0, math.pi / 2, 300)
reach = pd.concat([pd.DataFrame({"C": c, "s": scales, "p": [reachable_probability(s, c) for s in scales]})
                   for c in (2, 4, 100, 10_000)])  # fmt: skip
lead, leverage = theta.sin() - theta.cos(), theta.sin() + theta.cos()  # the other's cosine less the own; its slope
slopes = pd.concat([pd.DataFrame({"s": s, "theta": theta, "slope": s * torch.sigmoid(s * lead) * leverage})
                    for s in (4, 15, 37, 64)])  # fmt: skip

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.3))
for (c, rows), style in zip(reach.groupby("C"), ("-", "-", "--", ":"), strict=True):
    _ = left.plot(rows["s"], 100 * rows["p"], style, color=BLACK if c == 4 else figures.GREY, lw=2.4 if c == 4 else 1.3,
                  label=f"C = {c:,}")  # fmt: skip
_ = left.axvline(scale_needed, color=ORANGE, lw=1.2, label="99 % with C = 4")
left.set(xscale="log", xlabel="scale s", ylabel="reachable probability [%]", title="What a perfect clip can reach")
for s, rows in slopes.groupby("s"):
    _ = right.plot(np.degrees(rows["theta"]), rows["slope"] / s, label=f"s = {s}", lw=1.8)
_ = right.axvline(45, color="#AAAAAA", lw=0.8, ls="--")
right.set(xlabel=r"angle to the own prototype $\theta_y$ [°]", xticks=range(0, 91, 15),
          ylabel=r"pull per scale, $\frac{1}{s}\,dL/d\theta_y$ [1/rad]",
          title=r"Where the pull is (other prototype at $90°-\theta_y$)")  # fmt: skip
for ax in (left, right):
    _ = ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
figures.save(fig, "03-scale", profile, pd.concat([reach, slopes]))

# %% tags=["check"]
top = {s: reachable_probability(s, 4) for s in (1, scale_needed)}
assert math.isclose(top[scale_needed], 0.99)
print(f"With C = 4 and s = 1 a perfect clip reaches {top[1]:.1%}; 99 % takes s = {scale_needed:.2f}.")
missing = {s: 3 * math.exp(-4 * s / 3) for s in (15, 37)}
print(f"At s = 15 it misses 1 by {missing[15]:.0e}, at s = 37 by {missing[37]:.0e}: neither scale is a limit.")

# %% [markdown]
# ## 3. Add a margin: to the cosine or to the angle
#
# Softmax is content once $\theta_y$ is the smallest angle, by however little. A **margin** makes the true class harder
# in training, so that the clip must come closer than needed:
#
# | | target logit | the boundary in training |
# |---|---|---|
# | normalised softmax | $s\cos\theta_y$ | $\theta_y=\theta_j$ |
# | CosFace | $s(\cos\theta_y-m)$ | $\cos\theta_y-m=\cos\theta_j$: a gap that depends on where you are |
# | ArcFace | $s\cos(\theta_y+m)$ | $\theta_y+m=\theta_j$: the same angle everywhere |
#
# Beyond $\theta_y=\pi-m$ the cosine would turn back and reward a *worse* clip. `qlung.margins` goes on as the parabola
# with the same value and slope.

# %% [markdown] tags=["exercise"]
# **Exercise margin-4.** ArcFace's target logit, for $\theta + m \le \pi$. The margin is in radians.


# %% tags=["exercise", "solution"]
def arcface_logit(cosine, margin, scale):
    """scale * cos(theta + margin), for the cosine [B] of theta."""
    return scale * torch.cos(torch.acos(cosine) + margin)


# %% tags=["exercise"]
lessons.check("margin-4", arcface_logit)

# %% [markdown] tags=["exercise"]
# **Exercise margin-5.** All logits of a batch: the margin goes on the true class, the scale on every class.


# %% tags=["exercise", "solution"]
def margin_logits(cosine, target, margin, scale):
    """Logits [B, C] from cosines [B, C], classes [B], a margin [rad] and a scale."""
    picked = cosine.gather(1, target[:, None])
    return scale * cosine.scatter(1, target[:, None], torch.cos(torch.acos(picked) + margin))


# %% tags=["exercise"]
lessons.check("margin-5", margin_logits)

# %% [markdown] tags=["exercise"]
# **Exercise margin-6.** Predict the class of clips whose target you don't know. Everything training used is passed in;
# use what you need.


# %% tags=["exercise", "solution"]
def predict(cosine, class_margin, scale):
    """Class index [B] from cosines [B, C]."""
    return cosine.argmax(dim=1)


# %% tags=["exercise"]
lessons.check("margin-6", predict)

# %% [markdown]
# Everything from here on uses the one function behind all these losses,
# `margins.angular_margin_logits(cosine, target, margin, scale, cosine_margin)`. Left, the logit a clip gets at each
# angle; right, how hard the loss pulls it back, against one other class whose cosine is fixed at 0.

# %%
theta = torch.linspace(1e-3, math.pi - 1e-3, 600, dtype=torch.float64)
KINDS = {"softmax": (0.0, 0.0), "CosFace, 0.35": (0.0, 0.35),
         "ArcFace, 0.5 rad": (0.5, 0.0), "ArcFace, 1 rad": (1.0, 0.0)}  # fmt: skip
rows = []
for name, (angle, additive) in KINDS.items():
    at = theta.clone().requires_grad_()
    cosine = torch.stack([at.cos(), torch.zeros_like(at)], 1)
    target = torch.zeros(len(at), dtype=torch.long)
    logits = margins.angular_margin_logits(cosine, target, angle, 15.0, additive)
    (pull,) = torch.autograd.grad(F.cross_entropy(logits, target, reduction="sum"), at)
    rows.append(pd.DataFrame({"loss": name, "theta": theta, "logit": logits[:, 0].detach(), "pull": pull}))
curves = pd.concat(rows)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.4))
for (name, rows), colour in zip(curves.groupby("loss", sort=False), (BLACK, GREEN, BLUE, ORANGE), strict=True):
    _ = left.plot(np.degrees(rows["theta"]), rows["logit"], color=colour, lw=1.8, label=name)
    _ = right.plot(np.degrees(rows["theta"]), rows["pull"], color=colour, lw=1.8)
for m, colour in ((0.5, BLUE), (1.0, ORANGE)):
    beyond = theta[theta > math.pi - m]
    _ = left.plot(math.degrees(math.pi - m), -15, "o", color=colour, ms=5)
    _ = left.plot(beyond.rad2deg(), 15 * torch.cos(beyond + m), ":", color=colour, lw=1.3)
left.set(ylabel="target logit (s = 15)", title="The target's logit")
right.set(ylabel=r"pull $dL/d\theta_y$ [1/rad]", title="How hard the loss pulls")
for ax in (left, right):
    ax.set(xlabel=r"angle to the own prototype $\theta_y$ [°]", xticks=range(0, 181, 45))
_ = fig.legend(loc="outside right upper", title="dots: θ + m = π\ndotted: cos turns back")
figures.save(fig, "03-target-logits", profile, curves)

# %% tags=["check"]
falling = {name: bool((np.diff(rows["logit"]) <= 1e-9).all()) for name, rows in curves.groupby("loss")}
assert all(falling.values())
print("Every target logit falls with the angle, on both sides of π − m.")

# %% [markdown]
# Two things to see on the right. A margin moves the pull to smaller angles: that is all it does. And at exactly
# $\theta_y=\pi-m$ the pull is zero, as it is for the softmax at $\pi$: matching the slope of the cosine there costs a
# standstill of one point. A clip that far out is pulled by $\mathcal L_{\rm cls}$, which has no margin.

# %% [markdown]
# An additive cosine margin is not an angle. How far inside the half-way line must a clip be? Between two prototypes at
# angle $\Delta$, CosFace's 0.35 asks for a gap that grows as the prototypes get closer, until no point satisfies it;
# ArcFace asks for the same angle at any $\Delta$.

# %%
apart = torch.linspace(0.05, math.pi, 300, dtype=torch.float64)
position = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None] * apart  # theta_y, on the arc between the two
inside = {
    "CosFace, 0.35": position.cos() - 0.35 >= (apart - position).cos(),
    "ArcFace, 0.35 rad": position + 0.35 <= apart - position,
}
gap = pd.DataFrame({"prototypes apart [deg]": apart.rad2deg()})
for name, safe in inside.items():
    largest = torch.where(safe, position, -1.0).amax(0)  # the largest angle that still satisfies the margin
    gap[name] = torch.where(largest >= 0, (apart / 2 - largest), torch.nan).rad2deg()
fig, ax = plt.subplots(figsize=(6.2, 3.1))
for name, colour in zip(inside, (GREEN, BLUE), strict=True):
    _ = ax.plot(gap["prototypes apart [deg]"], gap[name], color=colour, lw=2, label=name)
ax.set(xlabel="angle between the two prototypes [°]", ylabel="gap asked beyond the\nhalf-way line [°]", ylim=(0, None),
       xticks=range(0, 181, 45), title="The line stops where no point is close enough")  # fmt: skip
_ = ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
figures.save(fig, "03-cosine-or-angle", profile, gap)

# %% [markdown]
# ## 4. Break six ArcFaces
#
# The formula fits in a line, and public code disagrees on it. Six ways to write it, all found in the wild in some form;
# `c` is the target's cosine, and the logit is left unscaled.


# %%
def naive(c, m):
    return torch.cos(torch.acos(c) + m)


def clamped(c, m, eps=1e-7):
    return torch.cos(torch.acos(c.clamp(-1 + eps, 1 - eps)) + m)


def easy(c, m):
    return torch.where(c > 0, c * math.cos(m) - (1 - c**2).sqrt() * math.sin(m), c)


def threshold(c, m):
    shifted = c * math.cos(m) - (1 - c**2).sqrt() * math.sin(m)
    return torch.where(c > math.cos(math.pi - m), shifted, c - m * math.sin(math.pi - m))


# %%
def detached(c, m):
    return c + (torch.cos(torch.acos(c) + m) - c).detach()


def ours(c, m):
    cosine = torch.stack([c, torch.zeros_like(c)], 1)
    return margins.angular_margin_logits(cosine, torch.zeros(len(c), dtype=torch.long), m, 1.0)[:, 0]


SIX = {"acos, cos": naive, "acos, clamped": clamped, "expansion, easy margin": easy,
       "expansion, threshold": threshold, "no-grad margin": detached, "qlung.margins": ours}  # fmt: skip
m = 0.5

# %% [markdown]
# Five questions to each. *On the prototype*: the gradient in the feature when it lies exactly on its prototype.
# *Jump*: how far the logit leaps anywhere on $(0,\pi)$. *Rises*: the part of $(0,\pi)$ where a worse angle gives a
# better logit. *No margin*: the part where the logit equals the plain cosine. *Gradcheck*: is the gradient that of the
# loss?


# %%
def on_prototype(variant):
    """Gradient in a feature that equals its prototype."""
    x = torch.tensor([[1.0, 0.0]], requires_grad=True)
    variant(F.normalize(x, dim=1)[:, 0], m).sum().backward()
    return "NaN" if x.grad.isnan().any() else "finite"


def is_own_gradient(variant):
    """Compare autograd with finite differences at four generic angles."""
    c = torch.tensor([0.6, 0.3, -0.2, -0.95], dtype=torch.float64, requires_grad=True)
    return torch.autograd.gradcheck(lambda c: variant(c, m), c, raise_exception=False)


# %%
def audit(variant):
    """One row of the table."""
    theta = torch.linspace(0.001, math.pi - 0.001, 200_001, dtype=torch.float64)
    logit = variant(theta.cos(), m)
    step = logit.diff()
    return {"on the prototype": on_prototype(variant), "jump": float(step.abs().max().round(decimals=2)),
            "rises [%]": round(100 * float((step > 1e-12).double().mean())),
            "no margin [%]": round(100 * float(((logit - theta.cos()).abs() < 1e-9).double().mean())),
            "gradcheck": "passes" if is_own_gradient(variant) else "fails"}  # fmt: skip


# %%
six = pd.DataFrame({name: audit(variant) for name, variant in SIX.items()}).T
six

# %%
fig, axes = plt.subplots(2, 3, figsize=(9.6, 4.9), sharex=True, sharey=True)
rows = []
for ax, (name, variant) in zip(axes.flat, SIX.items(), strict=True):
    c = torch.linspace(0.001, math.pi - 0.001, 1500, dtype=torch.float64).cos().requires_grad_()
    logit = variant(c, m)
    (slope,) = torch.autograd.grad(logit.sum(), c)
    angle, logit = c.detach().acos(), logit.detach()
    row = pd.DataFrame({"variant": name, "theta": angle.rad2deg(), "logit": logit, "gradient": -slope * angle.sin()})
    _ = ax.plot(row["theta"], row["logit"].where(row["logit"].diff().abs().fillna(0) < 0.02), color=BLUE, lw=2)
    _ = ax.plot(row["theta"], row["gradient"], color=ORANGE, lw=1.4)
    _ = ax.axvline(math.degrees(math.pi - m), color="#999999", lw=0.8, ls="--")
    ax.set(title=name, xticks=range(0, 181, 45))
    rows.append(row)
fig.supxlabel(r"$\theta_y$ [°]; dashed: $\pi-m$, m = 0.5 rad", fontsize=9.5)
fig.supylabel("unscaled logit; its slope [1/rad]", fontsize=9.5)
handles = [plt.Line2D([], [], color=BLUE, lw=2), plt.Line2D([], [], color=ORANGE, lw=1.4)]
_ = fig.legend(handles, ["target logit", r"autograd's slope in $\theta_y$ [1/rad]"], loc="outside upper right", ncols=2)
figures.save(fig, "03-six-arcfaces", profile, pd.concat(rows))

# %% tags=["check"]
sound = six[(six["on the prototype"] == "finite") & (six["jump"] < 0.01) & (six["rises [%]"] == 0)
            & (six["no margin [%]"] == 0) & (six["gradcheck"] == "passes")]  # fmt: skip
assert list(sound.index) == ["qlung.margins"]
faults = {
    "NaN on the prototype": six["on the prototype"] == "NaN",
    "leaps": six["jump"] > 0.01,
    "rewards a worse angle": six["rises [%]"] > 0,
    "not its own gradient": six["gradcheck"] == "fails",
}
for fault, found in faults.items():
    print(f"{fault}: {'; '.join(six.index[found])}")
print(f"none of these: {'; '.join(sound.index)}")

# %% [markdown]
# ## 5. Train on a circle and on a sphere
#
# Toy breaths: sixteen numbers hold a breath sound, plus a crackle, plus a wheeze, each with its own loudness, plus
# noise at a **known** signal-to-noise ratio. A small network squeezes them into two or three dimensions, where we can
# look.
#
# On a circle two prototypes cannot pass each other, so we start them a quarter turn apart; from a random start they
# can get stuck on top of one another (try it). From three dimensions on, there is room to walk around.


# %%
def make_clips(counts, seed, snr_db=(-5.0, 20.0), dim=16):
    """Features [n, dim], classes [n] and signal-to-noise ratio [n, dB] of toy breaths."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    present = torch.stack([torch.ones_like(target), target % 2, target // 2], 1).float()
    clean = present * (0.6 + 0.8 * torch.rand(len(target), 3, generator=generator))
    clean = F.pad(clean, (0, dim - 3))
    snr = snr_db[0] + (snr_db[1] - snr_db[0]) * torch.rand(len(target), generator=generator)
    noise = F.normalize(torch.randn(len(target), dim, generator=generator), dim=1)
    return clean + noise * clean.norm(dim=1, keepdim=True) * 10 ** (-snr[:, None] / 20), target, snr


# %%
RING = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]])


def train(objective, clips, dim, seed=0, steps=200):
    """Fit encoder and prototypes to one objective(features, cosine, prototypes, target, snr)."""
    torch.manual_seed(seed)
    x, target, snr = clips
    encoder = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, dim))
    head = margins.AngularClassifier(dim, 4)
    if dim == 2:
        head.prototypes.data.copy_(RING)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.01)
    for _ in range(steps):
        loss = objective(features := encoder(x), head(features), head.prototypes, target, snr)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return encoder, head


# %%
COUNTS = [150] * 4
qlung = margins.QLungLoss(torch.tensor(COUNTS))


def quality(snr):
    """A perfect quality score: the known ratio, from -5 dB (0) to 20 dB (1)."""
    return ((snr + 5) / 25).clamp(0, 1)


def with_margin(angle, additive=0.0):
    """Cross-entropy at scale 15 with a fixed margin."""
    return lambda f, cos, w, y, snr: F.cross_entropy(margins.angular_margin_logits(cos, y, angle, 15.0, additive), y)


# %%
LOSSES = {
    "linear softmax": lambda f, cos, w, y, snr: F.cross_entropy(f @ w.T, y),
    "normalised": with_margin(0.0),
    "CosFace, 0.3": with_margin(0.0, 0.3),
    "ArcFace, 0.3 rad": with_margin(0.3),
    "QLung": lambda f, cos, w, y, snr: qlung(cos, y, quality(snr)),
}

# %%
training, held_out = make_clips(COUNTS, seed=1), make_clips(COUNTS, seed=2)
circle = {name: train(objective, training, dim=2) for name, objective in LOSSES.items()}
sphere = {name: train(LOSSES[name], training, dim=3) for name in ("linear softmax", "normalised", "QLung")}

# %% tags=["nbval-ignore-output"]
fig, axes = plt.subplots(1, 4, figsize=(10.2, 3.3))
rows = []
for ax, name in zip(axes, ("linear softmax", "normalised", "ArcFace, 0.3 rad", "QLung"), strict=True):
    encoder, head = circle[name]
    features, side = encoder(held_out[0]).detach(), 1.4
    if name == "linear softmax":
        side = 1.4 * float(features.norm(dim=1).quantile(0.95))
    else:  # a direction is all that counts: put the clip at radius 1 to 1.3, by its quality
        features = F.normalize(features, dim=1) * (1 + 0.3 * quality(held_out[2])[:, None])
        _ = ax.add_patch(plt.Circle((0, 0), 1, fill=False, color="#999999", lw=0.8))
    for k, w in enumerate(F.normalize(head.prototypes.detach(), dim=1) * side / 1.4):
        _ = ax.plot(*features[held_out[1] == k].T, ".", ms=3, alpha=0.5, mec="none", color=COLOUR[NAMES[k]])
        _ = ax.plot(*zip((0, 0), w.tolist(), strict=True), color=COLOUR[NAMES[k]], lw=3, label=NAMES[k])
    hat = "" if name == "linear softmax" else r"\hat "
    ax.set(title=name, aspect="equal", xlim=(-side, side), ylim=(-side, side), xlabel=f"${hat}x_1$",
           ylabel=f"${hat}x_2$")  # fmt: skip
    rows.append(pd.DataFrame({"loss": name, "x1": features[:, 0], "x2": features[:, 1], "label": held_out[1]}))
title = "bars: prototypes; points: held-out clips, outside a circle the further out the cleaner"
_ = fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, title=title)
figures.save(fig, "03-circle", profile, pd.concat(rows))

# %% tags=["nbval-ignore-output"]
fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.8), subplot_kw={"projection": "3d"})
grid = np.linspace(0, 2 * math.pi, 60)
rows = []
for ax, (name, (encoder, head)) in zip(axes, sphere.items(), strict=True):
    features = F.normalize(encoder(held_out[0]).detach(), dim=1)
    for x, y, z in ((np.cos(grid), np.sin(grid), 0 * grid), (np.cos(grid), 0 * grid, np.sin(grid))):
        _ = ax.plot(x, y, z, color="#AAAAAA", lw=0.6)
        _ = ax.plot(y, x, z, color="#AAAAAA", lw=0.6)
    for k, w in enumerate(F.normalize(head.prototypes.detach(), dim=1)):
        _ = ax.plot(*features[held_out[1] == k].T, ".", ms=3.5, alpha=0.5, mec="none", color=COLOUR[NAMES[k]])
        _ = ax.plot(*zip((0, 0, 0), w.tolist(), strict=True), color=COLOUR[NAMES[k]], lw=3, label=NAMES[k])
    ax.set(title=name, xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    ax.set_box_aspect((1, 1, 1), zoom=1.6)
    ax.set_axis_off()
    rows.append(pd.DataFrame({"loss": name, **dict(zip("xyz", features.T, strict=True)), "label": held_out[1]}))
_ = fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4,
               title="bars: prototypes; points: directions of held-out clips")  # fmt: skip
figures.save(fig, "03-sphere", profile, pd.concat(rows))

# %% [markdown]
# Pictures persuade; measure. For five seeds and every loss, on held-out clips in three dimensions: the mean angle of a
# clip to its class's mean direction (*within*), the smallest angle between two mean directions (*between*), and the
# accuracy of the nearest prototype.


# %%
def separation(encoder, head, clips):
    """Angles [deg] within and between classes, and accuracy [%]."""
    x, target, _ = clips
    with torch.no_grad():
        direction = F.normalize(encoder(x), dim=1)
        centre = F.normalize(torch.stack([direction[target == k].mean(0) for k in range(4)]), dim=1)
        within = (direction * centre[target]).sum(1).clamp(-1, 1).acos().rad2deg().mean()
        between = (centre @ centre.T - 2 * torch.eye(4)).max().clamp(-1, 1).acos().rad2deg()
        right = (head(encoder(x)).argmax(1) == target).float().mean()
    return {"within [°]": float(within), "between [°]": float(between), "accuracy [%]": 100 * float(right)}


measured = pd.DataFrame([
    {"loss": name, "seed": seed, **separation(*train(objective, training, 3, seed), held_out)}
    for name, objective in LOSSES.items() for seed in range(5)
])  # fmt: skip

# %% tags=["nbval-ignore-output"]
measured.drop(columns="seed").groupby("loss", sort=False).agg(["mean", "std"]).round(1)

# %% tags=["check", "nbval-ignore-output"]
wide = measured.pivot_table(index="seed", columns="loss")
for name in ("CosFace, 0.3", "ArcFace, 0.3 rad", "QLung"):
    for column in ("within [°]", "between [°]", "accuracy [%]"):
        change = wide[column][name] - wide[column]["normalised"]
        half = stats.t.ppf(0.975, len(change) - 1) * change.sem()
        said = "no clear change" if abs(change.mean()) <= half else "more" if change.mean() > 0 else "less"
        print(f"{name:17} {column:13} {change.mean():+5.1f} ± {half:.1f} against no margin: {said}")
assert np.isfinite(measured.drop(columns=["loss", "seed"])).all(axis=None)

# %% [markdown]
# And the scale? Section 2 says that with four classes anything above 4.3 can reach 99 %. Normalised softmax, no margin,
# three seeds a scale; *surprise* is the held-out cross-entropy of its own probabilities, which grows when they are too
# sharp. Watch which column notices the scale, and which does not.

# %%
rows = []
for scale in (1.0, scale_needed, 15.0, 37.0, 64.0):
    for seed in range(3):
        encoder, head = train(lambda f, cos, w, y, snr, s=scale: F.cross_entropy(s * cos, y), training, 3, seed)
        surprise = F.cross_entropy(scale * head(encoder(held_out[0])), held_out[1]).item()
        rows.append({"scale": round(scale, 1), **separation(encoder, head, held_out), "surprise [nat]": surprise})
by_scale = pd.DataFrame(rows).groupby("scale").agg(["mean", "std"])

# %% tags=["nbval-ignore-output"]
by_scale.round(2)

# %% tags=["check"]
surprise, between = by_scale["surprise [nat]"]["mean"], by_scale["between [°]"]["mean"]
assert surprise[1.0] > surprise[4.3]
assert surprise[64.0] > surprise[4.3]
assert between[64.0] < between[4.3] / 2
print("Both ends pay: a scale of 1 cannot be sure, a scale of 64 is sure when it is wrong.")
print("At 64 the classes lie less than half as far apart as at 4.3: a high scale forgives small angles.")

# %% [markdown]
# ## 6. Give rare classes more room
#
# A class with frequency $\pi_y$ is seen rarely, so its prototype is pushed away by everyone else's clips. Three
# remedies put the class frequency into the target logit:
#
# | | how much, at scale $s$ | units |
# |---|---|---|
# | QLung's log-scaled margin | $m_c=-\dfrac{m_{\rm target}}{\log C}\log\pi_y$ | added to the angle [rad] |
# | LDAM | $\propto n_y^{-1/4}$ | taken off the cosine |
# | logit adjustment | $\log\pi_k$ added to **every** logit; pairwise $\log(\pi_j/\pi_y)$ | logits, so $/s$ in cosines |

# %% [markdown] tags=["exercise"]
# **Exercise margin-7.** The log-scaled class margin. What does a class with frequency $1/C$ get?


# %% tags=["exercise", "solution"]
def log_class_margin(counts, target):
    """Margin [C, rad] from clips per class [C]; a balanced class gets `target`."""
    frequency = counts / counts.sum()
    return -target * frequency.log() / math.log(len(counts))


# %% tags=["exercise"]
lessons.check("margin-7", log_class_margin)

# %%
icbhi = torch.tensor([2063, 1215, 501, 363])  # training cycles of the official split, as the paper gives them
frequency = torch.logspace(-4, math.log10(0.97), 200)
two = torch.stack([frequency, 1 - frequency], 1)  # a class of this frequency against all the others
remedies = pd.DataFrame({
    "frequency": frequency,
    "−log π (QLung), added to θ [rad]": -0.2 / math.log(4) * frequency.log(),
    "n^(−1/4) (LDAM), off cos θ": 0.5 * (frequency / frequency.min()) ** -0.25,
    "logit adjustment / 15, off cos θ": (two[:, 1].log() - two[:, 0].log()) / 15,
})  # fmt: skip
fig, ax = plt.subplots(figsize=(7.4, 3.3))
for column, colour in zip(remedies.columns[1:], (BLUE, GREEN, ORANGE), strict=True):
    _ = ax.plot(100 * remedies["frequency"], remedies[column], color=colour, lw=2, label=column)
for name, share, margin in zip(NAMES, icbhi / icbhi.sum(), margins.class_margin(icbhi), strict=True):
    _ = ax.plot(100 * share, margin, "o", color=COLOUR[name], ms=6, mec="white", zorder=3, label=f"ICBHI {name}")
_ = ax.axhline(0, color="#999999", lw=0.8)
ax.set(xscale="log", xlabel="class frequency [%]", ylabel="margin", title="How much room a class is given")
_ = ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
figures.save(fig, "03-class-margins", profile, remedies)

# %% [markdown]
# Three shapes. $-\log\pi$ adds the same angle for every tenfold; $n^{-1/4}$ stays flat and rises in the tail (its size
# is a free choice: here 0.5 for the rarest); logit adjustment turns **negative** for a class that is more than half
# the data, which the two margins never do. Now the toy with 300 : 90 : 30 : 10 clips, tested on balanced ones, five
# seeds. The score is the mean recall, so that every class counts the same.

# %%
SKEWED = torch.tensor([300, 90, 30, 10])
m_log, m_root, prior = margins.class_margin(SKEWED), margins.root_margin(SKEWED), margins.log_prior(SKEWED)


def remedy(angle=None, additive=None, shift=0.0):
    """Cross-entropy at scale 15 with one margin per class."""
    none = torch.zeros(4)
    angle, additive = none if angle is None else angle, none if additive is None else additive
    return lambda f, cos, w, y, snr: F.cross_entropy(
        margins.angular_margin_logits(cos, y, angle[y], 15.0, additive[y]) + shift, y
    )


REMEDIES = {"no margin": remedy(), "same for all": remedy(angle=m_log.mean().expand(4)), "−log π": remedy(angle=m_log),
            "n^(−1/4)": remedy(additive=m_root), "logit adjustment": remedy(shift=prior)}  # fmt: skip


# %%
def recalls(encoder, head, clips):
    """Recall of each class [%]."""
    with torch.no_grad():
        right = (head(encoder(clips[0])).argmax(1) == clips[1]).float()
    return [100 * float(right[clips[1] == k].mean()) for k in range(4)]


skewed = pd.DataFrame(
    [(name, seed, *recalls(*train(objective, make_clips(SKEWED.tolist(), 10 + seed), 3, seed), held_out))
     for name, objective in REMEDIES.items() for seed in range(5)],
    columns=["remedy", "seed", *NAMES],
)  # fmt: skip
skewed["mean recall"] = skewed[NAMES].mean(axis=1)

# %% tags=["nbval-ignore-output"]
fig, ax = plt.subplots(figsize=(8.2, 3.3))
for row, name in enumerate(REMEDIES):
    own = skewed[skewed["remedy"] == name]
    for k, column in enumerate([*NAMES, "mean recall"]):
        at, colour = row + 0.14 * (k - 2), COLOUR.get(column, BLACK)
        _ = ax.plot(own[column], [at] * len(own), "o", ms=3, alpha=0.4, mec="none", color=colour)
        _ = ax.plot(own[column].mean(), at, "|", ms=10, mew=2.2, color=colour, label=column if not row else None)
ax.set_yticks(range(len(REMEDIES)), list(REMEDIES))
ax.set(ylim=(len(REMEDIES) - 0.5, -0.5), xlabel="recall on balanced held-out clips [%] (dots: 5 seeds, bar: mean)")
_ = ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
figures.save(fig, "03-imbalance", profile, skewed)

# %% tags=["check", "nbval-ignore-output"]
by_seed = skewed.pivot_table(index="seed", columns="remedy", values="mean recall")
for name in list(REMEDIES)[1:]:
    change = by_seed[name] - by_seed["no margin"]
    half = stats.t.ppf(0.975, len(change) - 1) * change.sem()
    said = "no clear change" if abs(change.mean()) <= half else "better" if change.mean() > 0 else "worse"
    print(f"{name:16} mean recall {change.mean():+5.1f} ± {half:.1f} points against no margin: {said}")
assert skewed["mean recall"].between(25, 100).all()

# %% [markdown]
# ## 7. Let quality decide
#
# The same margin for a clean and for a drowned clip asks the encoder to be certain about noise. Three losses let
# quality set the margin, and they disagree about its **direction**:
#
# | | quality is | a better clip gets |
# |---|---|---|
# | MagFace | the feature norm, with gradient | a larger angle |
# | AdaFace | the feature norm within the batch | a **smaller** angle (below 0 at the top), a larger cosine margin |
# | QLung | AQS, measured on the waveform before training | a larger angle |

# %%
best = torch.linspace(0, 1, 50)  # worst to best clip of a batch
norm = 10 + 100 * best  # the same order, as feature norms
ada_angle, ada_cosine = margins.adaface_margins(norm)
none = torch.zeros(50)
by_quality = margins.QLungLoss(icbhi, gamma=1.0).margin(torch.zeros(50, dtype=torch.long), best)
ADAPTIVE = {"MagFace": (margins.magface_margin(norm), none), "AdaFace": (ada_angle, ada_cosine),
            "QLung (γ = 1)": (by_quality, none)}  # fmt: skip


def pull(theta, angle, additive, scale=15.0):
    """Slope of the loss in theta [rad] against one other class at cosine 0."""
    at = theta.clone().requires_grad_()
    cosine, target = torch.stack([at.cos(), 0 * at], 1), torch.zeros(len(at), dtype=torch.long)
    logits = margins.angular_margin_logits(cosine, target, angle, scale, additive)
    return torch.autograd.grad(F.cross_entropy(logits, target, reduction="sum"), at)[0]


# %%
fig, axes = plt.subplots(1, 4, figsize=(10.2, 3.4))
theta = torch.linspace(0.01, math.pi - 0.01, 400)
rows = []
for ax, (name, (angle, additive)), colour in zip(axes[1:], ADAPTIVE.items(), (GREEN, ORANGE, BLUE), strict=True):
    _ = axes[0].plot(best, angle, color=colour, lw=2, label=f"{name}, angle [rad]")
    if name == "AdaFace":
        _ = axes[0].plot(best, additive, "--", color=colour, lw=1.5, label=f"{name}, cosine margin")
    for at, style, said in ((0, ":", "worst clip"), (-1, "-", "best clip")):
        slope = pull(theta, float(angle[at]), float(additive[at]))
        _ = ax.plot(theta.rad2deg(), slope, style, color=colour, lw=1.8)
        rows.append(pd.DataFrame({"loss": name, "clip": said, "theta": theta, "pull": slope}))
    ax.set(title=name, xlabel=r"$\theta_y$ [°]", xticks=range(0, 181, 60), ylim=(0, 16.5))
axes[0].set(xlabel="quality (0 worst, 1 best)", ylabel="margin", title="What the clip is asked for")
axes[1].set_ylabel(r"pull $dL/d\theta_y$ [1/rad]")
handles = [*axes[0].get_legend_handles_labels()[0], *(plt.Line2D([], [], color=BLACK, ls=ls) for ls in (":", "-"))]
_ = fig.legend(handles, [*axes[0].get_legend_handles_labels()[1], "worst clip", "best clip"],
               loc="outside lower center", ncols=3)  # fmt: skip
figures.save(fig, "03-quality-margins", profile, pd.concat(rows))

# %% tags=["check"]
slope = {name: float(angle[-1] - angle[0]) for name, (angle, _) in ADAPTIVE.items()}
assert slope["MagFace"] > 0 > slope["AdaFace"]
assert slope["QLung (γ = 1)"] > 0
print("; ".join(f"{name}: the angle {'rises' if value > 0 else 'falls'} with quality" for name, value in slope.items()))

# %% [markdown] tags=["exercise"]
# **Exercise margin-8.** QLung's margin of each clip, from its quality and its class.


# %% tags=["exercise", "solution"]
def qlung_margin(aqs, class_margin, target, gamma, kappa):
    """m_d [B, rad] from quality [B], class margins [C, rad] and classes [B]."""
    return gamma * kappa * aqs + (1 - gamma) * class_margin[target]


# %% tags=["exercise"]
lessons.check("margin-8", qlung_margin)

# %% [markdown] tags=["exercise"]
# **Exercise margin-9.** The whole loss: cross-entropy without a margin at one scale, plus $\lambda$ times
# cross-entropy with the margin at another, on the same cosines.


# %% tags=["exercise", "solution"]
def qlung_loss(cosine, target, margin, scale_cls, scale_margin, lam):
    """Scalar loss from cosines [B, C], classes [B] and margins [B, rad]."""
    shifted = margins.angular_margin_logits(cosine, target, margin, scale_margin)
    return F.cross_entropy(scale_cls * cosine, target) + lam * F.cross_entropy(shifted, target)


# %% tags=["exercise"]
lessons.check("margin-9", qlung_loss)

# %% tags=["check"]
cosine, target, aqs = torch.rand(64, 4) * 2 - 1, torch.randint(4, (64,)), torch.rand(64)
by_hand = qlung_loss(cosine, target, qlung_margin(aqs, margins.class_margin(icbhi), target, 0.5, 0.5), 37.0, 15.0, 0.4)
assert torch.allclose(by_hand, margins.QLungLoss(icbhi)(cosine, target, aqs), rtol=1e-5)
print("Your nine answers together are qlung.margins.QLungLoss with the paper's settings.")

# %% [markdown] tags=["exercise"]
# **Exercise margin-10.** How hard is a clip pulled? With one other class whose cosine stays at `other`, give
# $dL/d\theta$ for the logit $s\cos(\theta+m)$.


# %% tags=["exercise", "solution"]
def pull_on_angle(theta, margin, scale, other):
    """Slope dL/dtheta [B] of the two-class loss at angles theta [B, rad]."""
    p = torch.sigmoid(scale * (torch.cos(theta + margin) - other))
    return scale * (1 - p) * torch.sin(theta + margin)


# %% tags=["exercise"]
lessons.check("margin-10", pull_on_angle)

# %% [markdown]
# With all classes and both terms, the gradient in the feature is (derived line by line in `docs/gradient.md`)
#
# $$\frac{\partial L}{\partial x}=\frac{1}{\lVert x\rVert}\bigl(I-\hat x\hat x^\top\bigr)\sum_k g_k\,\hat w_k,\qquad
# g_k=s_a(p_k-1_{k=y})+\lambda s_d\,(q_k-1_{k=y})\,\rho_k,\qquad
# \rho_y=\frac{\sin(\theta_y+m_d)}{\sin\theta_y},\ \rho_{k\ne y}=1 .$$
#
# $p$ and $q$ are the softmax of the two terms. $\gamma$ and $\kappa$ act through $m_d$ only, $\lambda$ only as a
# weight.


# %%
def gradient_by_formula(x, w, target, margin, scale_cls=37.0, scale_margin=15.0, lam=0.4):
    """dL/dx [B, d] of the summed QLung loss, for theta + m < pi."""
    unit, prototypes = F.normalize(x, dim=1), F.normalize(w, dim=1)
    cosine, own = unit @ prototypes.T, F.one_hot(target, len(w)).to(x.dtype)
    theta = (cosine * own).sum(1).acos()
    rho = 1 + own * ((theta + margin).sin() / theta.sin() - 1)[:, None]
    p = (scale_cls * cosine).softmax(1)
    q = (scale_margin * torch.where(own.bool(), (theta + margin).cos()[:, None], cosine)).softmax(1)
    pulled = (scale_cls * (p - own) + lam * scale_margin * (q - own) * rho) @ prototypes
    return (pulled - (pulled * unit).sum(1, keepdim=True) * unit) / x.norm(dim=1, keepdim=True)


# %% tags=["check"]
x = torch.randn(200, 16, dtype=torch.float64, requires_grad=True)
head, target, aqs = margins.AngularClassifier(16, 4).double(), torch.randint(4, (200,)), torch.rand(200).double()
qlung_icbhi = margins.QLungLoss(icbhi)
(autograd,) = torch.autograd.grad(200 * qlung_icbhi(head(x), target, aqs), x)
formula = gradient_by_formula(x.detach(), head.prototypes.detach(), target, qlung_icbhi.margin(target, aqs))
assert (autograd - formula).abs().max() < 1e-9
assert ((autograd * x).sum(1).abs() < 1e-9).all()
print("The derived gradient equals autograd's on 200 clips, and never points along the feature.")

# %% [markdown]
# $\gamma$ and $\kappa$ work through the margin. How the pull answers to it (last formula of `docs/gradient.md`):
# $\lambda s_d(1-q_y)\bigl[\cos(\theta_y+m_d)+s_d\,q_y\sin^2(\theta_y+m_d)\bigr]$, large only near the boundary.

# %% tags=["check"]
theta = torch.linspace(0.05, 2.0, 100, dtype=torch.float64, requires_grad=True)
m_d = torch.full_like(theta, 0.3, requires_grad=True)
target = torch.zeros(100, dtype=torch.long)
logits = margins.angular_margin_logits(torch.stack([theta.cos(), 0 * theta], 1), target, m_d, 15.0)
(slope,) = torch.autograd.grad(F.cross_entropy(logits, target, reduction="sum"), theta, create_graph=True)
(response,) = torch.autograd.grad(slope.sum(), m_d)
q, phi = logits.softmax(1)[:, 0].detach(), (theta + m_d).detach()
assert torch.allclose(response, 15 * (1 - q) * (phi.cos() + 15 * q * phi.sin() ** 2))
strongest = float(phi[response.argmax()].rad2deg())
print(f"The pull answers most to the margin at θ + m = {strongest:.0f}°; the boundary is at 90°.")

# %% [markdown]
# ### Is the feature norm quality?
#
# MagFace and AdaFace read quality off $\lVert x\rVert$. Here the truth is known: the rank correlation (Spearman)
# between the norm of a held-out clip's feature and its signal-to-noise ratio. Two controls: *within classes*, because
# classes have lengths of their own; and *levelled* clips, all at the same loudness, because noise also makes a clip
# louder. A bar is the 95 % interval over clips (Fisher's z); a dot is a seed.


# %%
def magface(f, cos, w, y, snr):
    """MagFace with norm bounds that suit this encoder: it asks for long features where it can."""
    norm, bounds = f.norm(dim=1), (5.0, 25.0)
    logits = margins.angular_margin_logits(cos, y, margins.magface_margin(norm, bounds), 15.0)
    return F.cross_entropy(logits, y) + 20 * margins.magface_penalty(norm, bounds).mean()


def adaface(f, cos, w, y, snr):
    """AdaFace: norms standardised within the batch."""
    angle, additive = margins.adaface_margins(f.norm(dim=1))
    return F.cross_entropy(margins.angular_margin_logits(cos, y, angle, 15.0, additive), y)


NORMED = {name: LOSSES[name] for name in ("linear softmax", "normalised", "QLung")}
NORMED |= {"AdaFace": adaface, "MagFace": magface}


# %%
def rank_correlation(norm, snr, target):
    """Spearman's rho averaged within classes, with its 95 % interval: (rho, low, high)."""
    z, variance = [], []
    for k in range(4):
        rho = stats.spearmanr(norm[target == k], snr[target == k])[0]
        z.append(math.atanh(rho))
        variance.append((1 + rho**2 / 2) / (int((target == k).sum()) - 3))
    mean, half = np.mean(z), 1.96 * math.sqrt(sum(variance)) / 4
    return math.tanh(mean), math.tanh(mean - half), math.tanh(mean + half)


def level(clips):
    """The same clips, all of length 1."""
    return F.normalize(clips[0], dim=1), *clips[1:]


# %%
rows = []
for kind, prepare in {"as recorded": lambda clips: clips, "levelled": level}.items():
    x, target, snr = prepare(held_out)
    for name, objective in NORMED.items():
        for seed in range(3):
            encoder, _ = train(objective, prepare(training), 3, seed)
            rows.append((kind, name, seed, *rank_correlation(encoder(x).detach().norm(dim=1), snr, target)))
loudness = rank_correlation(held_out[0].norm(dim=1), held_out[2], held_out[1])
rows.append(("as recorded", "the clip's loudness", 0, *loudness))
norms = pd.DataFrame(rows, columns=["clips", "loss", "seed", "rho", "low", "high"])

# %% tags=["nbval-ignore-output"]
fig, axes = plt.subplots(1, 2, figsize=(9.2, 3.4), sharey=True)
names = [*NORMED, "the clip's loudness"]
for ax, (kind, table) in zip(axes, norms.groupby("clips", sort=False), strict=True):
    for row, name in enumerate(names):
        own = table[table["loss"] == name]
        at = row + (0.18 * (own["seed"] - 1) if len(own) > 1 else 0 * own["seed"])
        _ = ax.errorbar(own["rho"], at, xerr=[own["rho"] - own["low"], own["high"] - own["rho"]], fmt="o", ms=4.5,
                        color=BLUE if name in NORMED else BLACK, elinewidth=1.2)  # fmt: skip
    _ = ax.axvline(0, color="#999999", lw=0.8)
    ax.set(title=f"clips {kind}", xlabel=r"$\rho$ of norm and SNR, within classes", xlim=(-0.8, 0.8))
    ax.set_xticks((-0.5, 0, 0.5))
axes[0].set_yticks(range(len(names)), names)
axes[0].set_ylim(len(names) - 0.5, -0.5)
figures.save(fig, "03-norm-is-quality", profile, norms)

# %% tags=["check", "nbval-ignore-output"]
for (kind, name), own in norms.groupby(["clips", "loss"], sort=False):
    up, down = (own["low"] > 0).all(), (own["high"] < 0).all()
    said = "rises with quality" if up else "falls with quality" if down else "is no reliable sign of quality"
    print(f"{kind:12} {name:20} the norm {said} (rho {own['rho'].min():+.2f} to {own['rho'].max():+.2f})")
assert norms["rho"].between(-1, 1).all()

# %% [markdown]
# ## Play
#
# Two classes, prototypes at 0° (common) and 90° (rare). A clip on the coloured arcs satisfies its loss's training
# boundary; in the grey gap nobody does. Inference cuts at 45°, always. Move a slider below: the margin bars, the gap
# and the pull follow. Without widgets, the figure shows $s_d=15$, $m_{\rm target}=0.2$, an imbalance of 6 to 1,
# quality 0.5.


# %%
def two_classes(scale, target, imbalance, aqs):
    """Angles, margins (class part, quality part) [rad] and pulls [1/rad] of a common and a rare class."""
    by_class = margins.class_margin(torch.tensor([imbalance, 1.0]), target) / 2
    by_quality = torch.full((2,), 0.5 * 0.5 * aqs)
    theta = torch.linspace(0, math.pi / 2, 181)
    shifted = theta + (by_class + by_quality)[:, None]
    lead = theta.sin() - shifted.cos()  # of the other class over the handicapped own
    pulls = scale * torch.sigmoid(scale * lead) * (shifted.sin() + theta.cos())
    return theta.rad2deg(), by_class, by_quality, pulls


# %%
def redraw(scale=15.0, target=0.2, imbalance=6.0, aqs=0.5):
    """Set the data of what is drawn; nothing is plotted anew."""
    theta, by_class, by_quality, pulls = two_classes(scale, target, imbalance, aqs)
    for k, line in enumerate(arcs):
        reach = max(0.0, math.pi / 4 - float(by_class[k] + by_quality[k]) / 2)
        at = np.linspace(0, reach, 46)
        line.set_data((np.cos(at), np.sin(at)) if k == 0 else (np.sin(at), np.cos(at)))
        parts[0][k].set_width(float(by_class[k]))
        parts[1][k].set(x=float(by_class[k]), width=float(by_quality[k]))
        lines[k].set_data(theta, pulls[k] / scale)


# %%
TWO = {"common": COLOUR["normal"], "rare": COLOUR["both"]}
arc = np.linspace(0, math.pi / 2, 91)
board, (where, bars, force_ax) = plt.subplots(1, 3, figsize=(9.2, 3.1), dpi=90, width_ratios=(1, 0.9, 1.2))
_ = where.plot(np.cos(arc), np.sin(arc), color="#CCCCCC", lw=7, solid_capstyle="butt")
_ = where.plot((0, 0.75), (0, 0.75), "--", color="#999999", lw=1)
arcs = [where.plot([], [], color=c, lw=7, solid_capstyle="butt")[0] for c in TWO.values()]
where.set(aspect="equal", xlim=(0, 1.1), ylim=(0, 1.1), xlabel=r"$\hat x_1$", ylabel=r"$\hat x_2$",
          title="Satisfied in training")  # fmt: skip
parts = [bars.barh((0, 1), (0, 0), color=list(TWO.values()), alpha=alpha, height=0.55) for alpha in (1.0, 0.45)]
bars.set(xlim=(0, 1.6), xlabel="margin [rad]", title="For rarity; for quality (pale)", ylim=(-0.6, 1.6))
bars.set_yticks((0, 1), list(TWO))
lines = [force_ax.plot([], [], color=c, lw=2, label=name)[0] for name, c in TWO.items()]
force_ax.set(xlim=(0, 90), ylim=(0, 2.2), xticks=range(0, 91, 15), xlabel=r"angle to the own prototype $\theta_y$ [°]",
             ylabel="pull / scale [1/rad]", title="Who is pulled, and where")  # fmt: skip
_ = force_ax.legend(loc="upper left", ncols=2)
redraw()
board.canvas.draw()
board.set_layout_engine("none")  # laid out once: a move only redraws
figures.save(board, "03-playground", profile)

# %%
picture = widgets.Image(format="png")
sliders = {
    "scale": widgets.FloatLogSlider(15.0, min=0, max=2, description="scale s"),
    "target": widgets.FloatSlider(0.2, min=0, max=0.4, step=0.02, description="target [rad]"),
    "imbalance": widgets.FloatLogSlider(6.0, min=0, max=2, description="imbalance"),
    "aqs": widgets.FloatSlider(0.5, min=0, max=1, step=0.05, description="quality"),
}


# %% tags=["nbval-ignore-output"]
def move(_=None):
    """Redraw at the sliders' values and send the picture."""
    redraw(**{name: slider.value for name, slider in sliders.items()})
    buffer = io.BytesIO()
    board.savefig(buffer, format="png", dpi=board.dpi)
    picture.value = buffer.getvalue()


for slider in sliders.values():
    slider.observe(move, "value")
move()
widgets.VBox([widgets.HBox(list(sliders.values())[:2]), widgets.HBox(list(sliders.values())[2:]), picture])

# %% tags=["check"]
theta, _, _, low = two_classes(15.0, 0.2, 6.0, 0.0)
theta, _, _, high = two_classes(15.0, 0.2, 6.0, 1.0)
first = lambda pulls: theta[(pulls > 0.5 * 15).float().argmax(1)]  # noqa: E731
assert (first(high) < first(low)).all()
print("A cleaner clip is pulled from closer in, in both classes; the rare one from closest.")

# %% [markdown]
# ## What we found
#
# - **The geometry is certain.** Normalising takes the radial push away; the scale decides where the pull acts, and with
#   four classes it is no limit; a margin moves the pull to smaller angles. The loss built here from nine answers equals
#   the library's, and the derived gradient equals autograd's.
# - **The formula is easily written wrong.** Each of the five other ArcFaces has a fault that no training curve would
#   show: a NaN waiting on the prototype, a leap, a reward for a worse angle, a gradient that isn't its own.
# - **On toy data the scale matters more than the margin.** The least scale that can be sure separates the classes
#   widely; far above it a few degrees satisfy the loss, and nothing pushes the classes further apart.
# - **The margins' promises are hard to see there.** With five seeds, most intervals for compactness, separation
#   and accuracy (5) and for mean recall under imbalance (6) include zero; the printed lines say which don't. That
#   bounds what this experiment resolves; it is no verdict on lungs: notebooks 05 and 08 judge the claims on recordings.
# - **The feature norm is not quality by itself.** Noise makes a clip louder, and the norm can follow loudness instead;
#   with all clips levelled it rises with the true ratio for most losses, weakly, most for the plain linear softmax. A
#   score measured on the waveform avoids this detour and has confounders of its own: see notebook 02.
#
# ## Try next
#
# - Set the scale to 2 and to 64 in `with_margin` and look at the circle and the sphere again.
# - Start the circle from random prototypes (delete the two lines with `RING`) and count how often two end up together.
# - Turn the quality upside down in `LOSSES["QLung"]` (`1 - quality(snr)`): does held-out accuracy notice?
# - Give AdaFace the true quality in place of the norm. Which of the two signs helps the noisy half of the clips?
# - Open `exercises/03_exercises.ipynb` and rebuild the loss without looking.
