# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,-kernelspec,-jupytext.text_representation
# ---

# %% [markdown]
# # Ablate the margins
#
# **You will hold:** the paper's Table 3 on this profile, every seed drawn, with intervals over patients; then the study
# on real recordings that is committed with this book: what carries a difference, and what any choice of ours does.
# **Stands for:** Table 3. **Costs:** two minutes (demo), minutes (sc), with every run that isn't there yet trained.
#
# Each + row adds one part to the row above; then QLung swaps the linear classifier for the angular one. The last six
# are published losses by themselves, on the same angular head.

# %% tags=["parameters"]
profile: str = "demo"
data: str = ""

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch

from qlung import evaluation
from qlung.book import figures, results
from qlung.training import experiments, profiles

_ = torch.manual_seed(0)
figures.use_style()
predictions = experiments.train_all(profile, data)
home, away = profiles.load_profile(profile).names  # trained on the first, tested on both
runs, table = evaluation.scores(predictions)
pd.set_option("display.max_rows", 200)

# %% [markdown]
# ## Every method, every seed

# %% tags=["nbval-ignore-output"]
results.pretty(table)

# %% tags=["nbval-ignore-output"]
widest = max(profiles.load_profile(profile).backbones.items(), key=lambda item: len(item[1]["methods"]))[0]
own = runs[runs["backbone"] == widest]
present = [m for m in figures.METHOD_NAMES if m in set(own["method"])]
fig, axes = plt.subplots(1, 2, figsize=(10, 0.35 * len(present) + 1.2), sharey=True)
for ax, corpus in zip(axes, (home, away), strict=True):
    figures.dots(ax, own[own["corpus"] == corpus], "Score", present, color="#0072B2")
    _ = ax.axvline(50, color="black", lw=0.8, ls="--")
    _ = ax.annotate("always normal", (50, len(present) - 0.6), xytext=(3, 0), textcoords="offset points", fontsize=8)
    _ = ax.set(xlabel="Score [%]", title=f"{widest}, tested on {corpus}")
figures.save(fig, "05-methods", profile, own)

# %% [markdown]
# A dot is a seed; the bar is the mean, its whiskers one standard deviation.
#
# ## One step at a time
#
# Each row of Table 3 against the row above it: the difference in Score on ICBHI's test clips, with 95 % intervals over
# patients and seeds (both resampled; the same draws for both methods). Beside it what the paper reports.

# %% tags=["nbval-ignore-output"]
steps = [("fixed", "ce", 0.17), ("quality", "fixed", 0.75), ("class", "quality", 0.09), ("qlung", "class", 1.45),
         ("qlung", "ce", 2.46)]  # fmt: skip
rows = []
for backbone, part in predictions[predictions["corpus"] == home].groupby("backbone", sort=False):
    for better, than, paper in steps:
        if {better, than} <= set(part["method"]):
            measured = evaluation.difference(part, better, than)
            rows.append({"backbone": backbone, "better": better, "than": than, "paper": paper, **measured})
differences = pd.DataFrame(rows)
differences.round(2)

# %% tags=["nbval-ignore-output"]
fig, ax = plt.subplots(figsize=(8, 0.42 * len(differences) + 1.2))
for y, row in enumerate(differences.itertuples()):
    _ = ax.plot([row.low, row.high], [y, y], color="#0072B2", lw=2)
    _ = ax.plot(row.difference, y, "o", color="#0072B2", label="here, 95 % interval" if not y else None)
    _ = ax.plot(row.paper, y, "D", color="#D55E00", ms=5, label="paper (AST, full ICBHI)" if not y else None)
name = figures.METHOD_NAMES.get
labels = [f"{r.backbone}: {name(r.better)} minus {name(r.than)} ({r.seeds} seeds)" for r in differences.itertuples()]
_ = ax.set_yticks(range(len(differences)), labels)
_ = ax.axvline(0, color="black", lw=0.8)
_ = ax.set(xlabel="difference in Score [percentage points]", title="Table 3, step by step")
_ = ax.legend(loc="upper center", bbox_to_anchor=(0.3, -0.25 if len(differences) < 8 else -0.12), ncols=2)
ax.invert_yaxis()
figures.save(fig, "05-steps", profile, differences)

# %% [markdown]
# The paper's own spread matters here: its Table 3 gives standard deviations of 0.83 to 1.92 over five seeds. A rough
# check of its step "+ quality margin" from the published means and standard deviations (Welch's test, five seeds each):

# %% tags=["check"]
from scipy import stats

published = {"ce": (59.55, 1.92), "fixed": (59.72, 0.89), "quality": (60.47, 0.96), "class": (60.56, 0.83),
             "qlung": (62.01, 1.18)}  # fmt: skip
welch = []
for better, than, paper in steps:
    (a, sa), (b, sb) = published[better], published[than]
    p = stats.ttest_ind_from_stats(a, sa, 5, b, sb, 5, equal_var=False).pvalue
    welch.append({"step": f"{better} - {than}", "paper": round(a - b, 2), "p (Welch, unpaired)": round(p, 2)})
    assert abs(a - b - paper) < 0.006
pd.DataFrame(welch)

# %% [markdown]
# Unpaired because the paper doesn't say which seeds belong together; five steps are five tests.
#
# ## Angles
#
# Claim C6: classes become more compact and further apart. For every test clip, the angle to the nearest *other*
# prototype minus the angle to its own (negative: misclassified), mean over clips and seeds.

# %% tags=["nbval-ignore-output"]
angles = []
for backbone, part in predictions[predictions["corpus"] == home].groupby("backbone", sort=False):
    draws = evaluation.bootstrap(part[part["method"].isin(["ce", "qlung"])], "separation")
    for method in draws:
        low, high = draws[method].iloc[1:].quantile([0.025, 0.975])
        angles.append({"backbone": backbone, "method": method, "separation [°]": draws[method].iloc[0],
                       "low": low, "high": high})  # fmt: skip
pd.DataFrame(angles).round(1)

# %% [markdown]
# ## The same question on real recordings
#
# Everything from here on is read from the predictions committed in `figures/`, so it is the same on any profile and
# costs no training: trained on the single-channel part of ICBHI, tested on its test patients. Twice: `mn04` fine-tuned,
# five seeds a row; and the frozen AudioSet embedding with a learnt projection (`mn04_frozen`), ten seeds a row.

# %%
real = {"fine-tuned": results.evidence("depth"), "frozen": results.evidence("sc").query("backbone == 'mn04_frozen'")}
table3 = [m for m in figures.METHOD_NAMES if m in {name for step in steps for name in step[:2]} | {"angular"}]
rows = []
for encoder, kept in real.items():
    means = evaluation.scores(kept[(kept["corpus"] == "icbhi") & kept["method"].isin(table3)])[1]
    rows.append(results.pretty(means).assign(encoder=encoder))
pd.concat(rows).query("backbone != 'none'")[["encoder", "method", "Sp", "Se", "Score", "seeds"]].reset_index(drop=True)

# %%
carried = pd.DataFrame([
    {"encoder": encoder, "step": f"{b} - {t}", "paper": p,
     **evaluation.difference(kept[kept["corpus"] == "icbhi"], b, t)}
    for encoder, kept in real.items() for b, t, p in [*steps, ("angular", "ce", float("nan"))]
])  # fmt: skip
carried["paper's inside"] = (carried["low"] <= carried["paper"]) & (carried["paper"] <= carried["high"])
carried.round(2)

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 2.9), sharey=True, sharex=True)
for ax, (encoder, part) in zip(axes, carried.groupby("encoder", sort=False), strict=True):
    for y, row in enumerate(part.itertuples()):
        _ = ax.plot([row.low, row.high], [y, y], color="#0072B2", lw=2)
        _ = ax.plot(row.difference, y, "o", color="#0072B2", label="here, 95 % interval" if not y else None)
        _ = ax.plot(row.paper, y, "D", color="#D55E00", ms=5, label="paper (AST, full ICBHI)" if not y else None)
    _ = ax.axvline(0, color="black", lw=0.8)
    _ = ax.set(title=f"mn04 {encoder}, {part['seeds'].iloc[0]} seeds", xlabel="difference in Score [points]")
labels = [" minus ".join(name(m, m) for m in step.split(" - ")) for step in part["step"]]
_ = axes[0].set_yticks(range(len(part)), labels), axes[0].set_ylim(len(part) - 0.5, -0.5)
_ = fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=2)
figures.save(fig, "05-carried", profile, carried)

# %% [markdown]
# **Checked:** fine-tuned, the answer is neither yes nor no: the interval of every step holds the paper's effect, and 0,
# and the sign of QLung minus CE depends on the seed. With the frozen encoder the intervals are narrower and leave out
# three of the paper's five effects, but none leaves out 0.

# %% tags=["check"]
inside = carried.dropna(subset="paper").groupby("encoder")["paper's inside"].sum()
assert inside.to_dict() == {"fine-tuned": 5, "frozen": 2}
assert ((carried["low"] < 0) & (carried["high"] > 0)).all()
tuned = real["fine-tuned"].query("corpus == 'icbhi' and method in ('ce', 'qlung')")
by_seed = evaluation.score_table(tuned, ["method", "seed"]).pivot_table("Score", "seed", "method")
by_seed["qlung - ce"] = by_seed["qlung"] - by_seed["ce"]
assert by_seed["qlung - ce"].min() < 0 < by_seed["qlung - ce"].max()
by_seed.round(2)

# %% [markdown]
# ## Who gets the quality margin
#
# The control that matters is `shuffled`: it hands out the very same margins, but to other clips. If AQS carried what
# the margin needs, taking it from the right clips would cost something. (`device_mean`: of the clip's device;
# `aqs_device`: levels made equal between devices; `clean_cheap`: fitted on known damage; `learned_`: on SPRSound's
# Poor Quality labels, so that those two have seen something of SPRSound.) Each row stands against the same method with
# AQS, paired by seed; frozen encoder, and one row with the fine-tuned one.

# %%
effects = evaluation.contrasts(results.evidence("ablation"))
deep = evaluation.contrasts(results.evidence("depth"))
sources = pd.concat([effects, deep])
sources = sources[sources["row"].str.contains("quality=")].assign(
    method=lambda t: t["against"].map(figures.METHOD_NAMES), source=lambda t: t["row"].str.split("=").str[1]
)
columns = ["source", "backbone", "method", "corpus", "difference", "low", "high"]
sources[columns].sort_values(columns[:4], kind="stable").round(1).reset_index(drop=True)

# %%
names = list(dict.fromkeys(sources["source"]))
frozen = sources[sources["backbone"] == "mn04_frozen"]
fig, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, sharex=True)
for ax, (corpus, part) in zip(axes, frozen.groupby("corpus", sort=False), strict=True):
    for shift, (method, rows) in zip((-0.15, 0.15), part.groupby("method", sort=False), strict=True):
        y = [names.index(name) + shift for name in rows["source"]]
        bars = [rows["difference"] - rows["low"], rows["high"] - rows["difference"]]
        _ = ax.errorbar(rows["difference"], y, xerr=bars, fmt="o", ms=5, capsize=2, label=method)
    _ = ax.axvline(0, color="black", lw=0.8)
    _ = ax.set(xlabel="Score minus the same with AQS [points]", title=f"tested on {corpus}")
_ = axes[0].set_yticks(range(len(names)), names)
_ = fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
axes[0].invert_yaxis()
figures.save(fig, "05-sources", profile, sources[columns])

# %% [markdown]
# **Checked:** no interval of the frozen encoder excludes 0, on either corpus. Shuffled, inverted or constant quality,
# quality that agrees with people: within these intervals it makes no difference whom the quality margin is given to.
# Fine-tuned, the control is sharper: on ICBHI shuffling costs less than the 0.75 points that the paper's quality margin
# adds, with the interval, too.

# %% tags=["check"]
assert ((frozen["low"] < 0) & (frozen["high"] > 0)).all()
widest = (frozen["high"] - frozen["low"]).max() / 2
print(f"{len(frozen)} intervals, none excludes 0; the widest is {widest:.1f} points to either side")
tuned = sources[sources["backbone"] == "mn04"].set_index("corpus")
assert tuned.loc["icbhi", "low"] > -0.75
tuned[["source", "method", "difference", "low", "high", "p patients", "p seeds"]].round(2)

# %% [markdown]
# ## Every constant, every reading
#
# The paper's constants ($\lambda$, $\gamma$, $\kappa$, $m_\mathrm{target}$, $s_a$, $s_d$, $\alpha$, $\beta$) moved one
# at a time, and the ledger's entries that can be trained. Drawn: Score on ICBHI's test clips against QLung as the paper
# states it (or the fixed margin against 0.2 rad). These rows are for reading, not for choosing: that is what folds of
# the training patients are for.

# %%
moved = effects[effects["row"].str.contains(" ") & ~effects["row"].str.contains("quality=|checkpoint=")]
moved = moved[moved["corpus"] == "icbhi"]
fig, ax = plt.subplots(figsize=(7.5, 0.24 * len(moved) + 1))
for y, row in enumerate(moved.itertuples()):
    colour = "#666666" if row.low <= 0 <= row.high else "#D55E00"
    _ = ax.plot([row.low, row.high], [y, y], color=colour, lw=1.8)
    _ = ax.plot(row.difference, y, "o", color=colour, ms=5)
_ = ax.set_yticks(range(len(moved)), moved["row"])
_ = ax.axvline(0, color="black", lw=0.8)
_ = ax.set(xlabel="difference in Score [points], 95 % over patients and seeds", title="Sensitivity")
_ = ax.set_ylim(len(moved) - 0.4, -0.6)
figures.save(fig, "05-sensitivity", profile, moved)

# %%
outside = moved[(moved["low"] > 0) | (moved["high"] < 0)]
print(f"{len(outside)} of {len(moved)} intervals exclude 0; by chance one in twenty would: {len(moved) / 20:.1f}")
outside[["row", "against", "difference", "low", "high"]].round(1).reset_index(drop=True)

# %% [markdown]
# ## What choosing the epoch on test is worth
#
# Public code of this family keeps the epoch that scores best **on the test set**. Against the last epoch: the best on a
# fifth of the training patients (`val`; they are then missing in training), and the best on ICBHI's test clips.

# %%
picked = effects[effects["row"].str.contains("checkpoint=")]
picked.drop(columns="backbone").round(1).reset_index(drop=True)

# %% [markdown]
# **Checked:** the best epoch on ICBHI's test clips scores higher there than the last one. It could not be otherwise,
# and that is the point: the gain is selection, and it needs no better method. It is the largest gain of the study, too.

# %% tags=["check"]
at_home = picked[(picked["corpus"] == "icbhi") & picked["row"].str.contains("best_on_test")]
assert (at_home["difference"] > 0).all()
assert at_home["difference"].max() > effects[~effects.index.isin(picked.index)]["difference"].max()
at_home.set_index("against")["difference"].round(1).to_dict()

# %% [markdown]
# ## Without the patient on both sides, and the other way round
#
# `disjoint` moves patient 218, who has cycles in training and test, out of training. `reverse` trains on SPRSound.

# %%
rows = []
for name in ("ablation", "disjoint", "reverse"):
    kept = results.evidence(name)
    kept = kept[~kept["method"].str.contains(" ")]
    rows.append(results.pretty(evaluation.scores(kept)[1]).assign(study=name))
table = pd.concat(rows)
table[table["backbone"] != "none"][["study", "corpus", "method", "Sp", "Se", "Score"]].reset_index(drop=True)

# %% [markdown]
# ## An improved variant, chosen where test isn't
#
# Each fifth of the training patients in turn is left out and predicted by runs that never heard them (three seeds, the
# 1,049 training cycles pooled). The best variant of QLung there is fixed and gets one row on test.

# %%
held_out = evaluation.score_table(results.evidence("folds"), ["method", "seed"])
ranked = held_out.groupby("method")[["Sp", "Se", "Score"]].mean().sort_values("Score", ascending=False)
ranked.round(1).reset_index()

# %% [markdown]
# **Checked:** the variant that the `sc` study reports is the one that won on the folds.

# %% tags=["check"]
winner = next(row for row in ranked.index if row.startswith("qlung"))
reported = [label for label, _ in profiles.load_profile("sc").rows() if " " in label]
assert set(reported) == {winner}
sc = evaluation.contrasts(results.evidence("sc"))
print(f"{winner}: rank {ranked.index.get_loc(winner) + 1} of {len(ranked)}, behind {ranked.index[0]}")
sc[sc["row"].isin([winner, "qlung"]) & (sc["backbone"] == "mn04_frozen")].round(1).reset_index(drop=True)

# %% [markdown]
# ## What we found
#
# By the paper's own means and spreads, its quality and class steps can't be told from chance with five seeds; the step
# to the angular classifier and the whole of QLung are at the edge.
#
# On the real recordings at hand nothing moves Score by an amount that shows: not the steps of Table 3, not who gets the
# quality margin, not a constant. With the frozen encoder three of the paper's five effects are larger than the
# intervals allow. Fine-tuned, all five are allowed, and so is 0: five seeds and 33 patients can't tell them apart. That
# is about this part and these encoders, and no refutation of a study with all of ICBHI and AST. The largest gain here
# comes from looking at test while choosing the epoch.
#
# ## Try next
#
# - Add seeds in `experiments.toml` and see which intervals shrink: those over patients don't.
# - Train with `kappa = 0`: a quality margin without quality. Is it worse?
