# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Judge the claims
#
# **You will hold:** a verdict on every claim of the paper as far as this profile allows one, what the method costs, and
# what remains to be run.
# **Stands for:** the paper's conclusions. **Costs:** seconds once the runs of notebook 05 are there.
#
# A claim about the full ICBHI set with AST is not judged by a part of it with a smaller network: the table says what
# this profile shows and, apart from that, the verdict on the claim.

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""

# %%
import time

import matplotlib.pyplot as plt
import pandas as pd
import torch

from qlung import backbones, claims, experiments, features, figures, quality, results
from qlung.margins import AngularClassifier, QLungLoss

_ = torch.manual_seed(0)
figures.use_style()
pd.set_option("display.max_colwidth", 100)
predictions = experiments.train_all(profile, data)

# %% [markdown]
# ## The verdicts

# %% tags=["nbval-ignore-output"]
verdicts = claims.judge(profile, predictions)
verdicts

# %% tags=["nbval-ignore-output"]
rows = [
    {"claim": claim["id"], **row}
    for claim in claims.load()
    if claim.get("statistic", "Score") == "Score"
    for row in claims.measure(claim, predictions).to_dict("records")
]
drawn = pd.DataFrame(rows)
fig, ax = plt.subplots(figsize=(8, 0.36 * len(drawn) + 1))
for y, row in enumerate(drawn.itertuples()):
    colour = {"for": "#009E73", "against": "#D55E00", "undecided": "#666666"}[row.shows]
    _ = ax.plot([row.low, row.high], [y, y], color=colour, lw=2)
    _ = ax.plot(row.difference, y, "o", color=colour)
_ = ax.set_yticks(range(len(drawn)), [f"{r.claim}, {r.backbone} ({r.seeds} seeds)" for r in drawn.itertuples()])
_ = ax.axvline(0, color="black", lw=0.8)
_ = ax.set(xlabel="difference in Score [percentage points], 95 % over patients and seeds")
_ = ax.set_title("What this profile shows")
ax.invert_yaxis()
figures.save(fig, "08-claims", profile, verdicts)

# %% [markdown]
# Grey intervals contain 0. Six intervals are drawn per backbone, so one of twenty excluding 0 by chance is no news.
#
# **Checked:** a claim that asks for the paper's own study gets no verdict from any other profile.

# %% tags=["check"]
elsewhere = [claim["id"] for claim in claims.load() if profile not in claim["judged_on"]]
given = verdicts.set_index("claim")["verdict"]
assert given[elsewhere].str.startswith("not testable here").all()
assert not given.drop(elsewhere).str.startswith("not testable here").any()
given[elsewhere].to_dict()

# %% [markdown]
# ## What the committed study on real recordings shows
#
# Read from `figures/sc/predictions.parquet`, so the same on every profile: trained and tested on the single-channel
# part of ICBHI, and tested on SPRSound's inter-patient test. It can't judge the paper's study; it is the nearest thing
# that a laptop can run on patients' recordings.

# %%
real = claims.judge("sc", results.evidence("sc"))
real[["claim", "text", "paper", "here"]]

# %% [markdown]
# ## What it costs (L1)
#
# AQS is needed in training only. Per batch of 16 clips of 8 s: the score itself, the front end that every method needs,
# and a training step of the small CNN with and without the margin term. Median of five.


# %%
def median_ms(function, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - started))
    return sorted(times[1:])[repeats // 2]


wave = 0.1 * torch.randn(16, 8 * 16000)
encoder, classifier, loss = backbones.build_backbone("cnn"), AngularClassifier(64, 4), QLungLoss([40, 30, 20, 10])
x, y, aqs = features.ast_fbank(wave), torch.arange(16) % 4, torch.full((16,), 0.5)


def step(with_margin: bool) -> None:
    cosine = classifier(encoder(x))
    value = loss(cosine, y, aqs) if with_margin else torch.nn.functional.cross_entropy(37 * cosine, y)
    value.backward()


# %% tags=["nbval-ignore-output"]
cost = pd.Series({
    "entropy and RMS": median_ms(lambda: quality.spectral_entropy(wave, 16000, **quality.DEFAULT_READING)),
    "front end (fbank)": median_ms(lambda: features.ast_fbank(wave)),
    "training step, CE on cosines": median_ms(lambda: step(False)),
    "training step, QLung loss": median_ms(lambda: step(True)),
}).rename("milliseconds per 16 clips")  # fmt: skip
cost.round(1).to_frame()

# %% [markdown]
# ## Where quality can't be computed (L2)
#
# Silence, a sample that isn't a number, or less than one frame. Such a clip gets the training clips' mean AQS.

# %%
strange = {"silence": torch.zeros(16000), "not a number": torch.full((16000,), torch.nan), "10 ms": torch.randn(160)}
entropies = {n: float(quality.spectral_entropy(w, 16000, **quality.DEFAULT_READING)) for n, w in strange.items()}
scorer = quality.QualityScorer().fit([0.6, 0.7, 0.8], [-20.0, -30.0, -25.0])
neutral = scorer.score(list(entropies.values()), [-20.0] * 3).round(3)
pd.DataFrame({"H": entropies.values(), "AQS used": neutral}, index=entropies)

# %% [markdown]
# ## What we found
#
# What this profile can say stands in the table, and "undecided" is most of it: the effects in question are smaller than
# what a few dozen test patients can resolve. That isn't evidence against the method; it is what the numbers allow.
#
# What remains: the paper's own study, all of ICBHI with AST and Audio-CLAP on a GPU, in one command:
# `make reproduce PROFILE=paper DATA=DIR`, or `qlung sweep --profile paper --data DIR` on several (`docs/scaling.md`).
# Nobody has run it here: without a GPU and the full corpora its rows stay "not testable here".
#
# ## Try next
#
# - Which claim would you judge first with a day of GPU, and how many seeds does the interval ask for?
# - Write a claim of your own as a row of `claims.toml`; this notebook judges it without a line of code.
