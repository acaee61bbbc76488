"""Tables and pages of results: of a profile's runs, and of the studies that are committed."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from .. import evaluation, paths
from ..corpora import CLASSES
from ..errors import ConfigError
from ..evaluation import claims
from ..quality import sources
from ..training import profiles
from .figures import METHOD_NAMES


def shown(row: str) -> str:
    """A row's name for people; one whose quality was fitted on SPRSound's labels says so wherever it stands."""
    method, _, settings = row.partition(" ")
    seen = " (saw SPRSound labels)" if any(source in settings for source in sources.SEEN_SPRSOUND) else ""
    return " ".join([METHOD_NAMES.get(method, method), settings]).strip() + seen


def pretty(table: pd.DataFrame) -> pd.DataFrame:
    """A table of means and sds as people write it: 62.01 ± 1.18."""
    out = table[["corpus", "backbone"]].assign(method=table["method"].map(shown))
    for name in ("Sp", "Se", "Score"):
        pairs = zip(table[f"{name} mean"], table[f"{name} sd"], strict=True)
        out[name] = [f"{mean:.2f}" if np.isnan(sd) else f"{mean:.2f} ± {sd:.2f}" for mean, sd in pairs]
    return out.assign(seeds=table["seeds"])


def markdown(table: pd.DataFrame) -> str:
    """A DataFrame as a Markdown table; floats with two digits, p values with four, "-" for what isn't known."""
    digits = [4 if str(name).startswith("p ") else 2 for name in table.columns]
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    for row in table.itertuples(index=False):
        cells = [f"{v:.{n}f}" if isinstance(v, float) else str(v) for v, n in zip(row, digits, strict=True)]
        lines.append(["-" if cell == "nan" else cell.replace("|", "\\|") for cell in cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


MOST_ROWS = 40  # of a table on a page; longer ones are CSV beside it


def tables(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Every table of results, from predictions alone, by the name of its CSV.

    Returns
    -------
    dict
        "scores" (mean and sd over seeds), "runs" (every run), "measures" (mean over seeds of every measure that
        notebook 06 explains) and "contrasts" (`evaluation.contrasts`).
    """
    runs, means = evaluation.scores(predictions)
    measured, contrasts = evaluation.every_measure(predictions), evaluation.contrasts(predictions)
    return {"scores": means, "runs": runs, "measures": measured, "contrasts": contrasts}


def write_tables(home: Path, tables: dict[str, pd.DataFrame]) -> list[Path]:
    """Write tables as CSV, with six decimals: the same bytes on another processor."""
    style = {"index": False, "float_format": "%.6f", "encoding": "utf-8"}
    return [
        paths.write_atomically(home / f"{name}.csv", lambda part, t=table: t.to_csv(part, **style))
        for name, table in tables.items()
    ]


def page(profile: str, predictions: pd.DataFrame, tables: dict, record: dict, home: str, pictures: list[str]) -> str:
    """The results page as Markdown.

    Parameters
    ----------
    tables : dict
        From `tables`.
    record : dict
        One run's run.json, for the provenance line.
    home : str
        Where the CSV files lie, relative to the page: "" or "figures/sc/".
    pictures : list of str
        Names of the pictures in ``home``.
    """
    clips = predictions.drop_duplicates(["corpus", "event_id"]).groupby(["corpus", "label"], sort=False).size()
    counts = clips.reset_index(name="n").pivot_table("n", "corpus", "label", fill_value=0)
    counts = counts.reindex(columns=range(4), fill_value=0).set_axis(CLASSES, axis=1).astype(int).reset_index()
    counts = counts.assign(patients=counts["corpus"].map(predictions.groupby("corpus")["patient_id"].nunique()))
    means, runs = tables["scores"], tables["runs"]
    methods = means[~means["method"].str.contains(" ") | (means["backbone"] == "none")]
    variants = len(means) - len(methods)
    left_out = f"{chr(10)}The {variants} rows of variants are in [scores.csv]({home}scores.csv).{chr(10)}"
    files = {"scores.csv": "mean and standard deviation over seeds, variants included",
             "runs.csv": f"Sp, Se and Score of {runs['run'].nunique()} runs", "contrasts.csv": "every difference",
             "measures.csv": "every measure that notebook 06 explains, mean over seeds"}  # fmt: skip
    if "folder" not in runs:  # a committed study, whose runs' folders are not
        files["runs.jsonl"] = "every run's record: settings, code, packages, data, time and memory"
    synthetic = "" if profiles.load_profile(profile).recorded else " (synthetic recordings)"
    return f"""# Results of profile {profile}{synthetic}

Code {record["commit"][:12]}{" with uncommitted changes" if record["dirty"] else ""}, Python {record["python"]}, \
torch {record["packages"]["torch"]}, {record["device"]}. Trained on {sum(record["train_counts"])} clips \
({" / ".join(map(str, record["train_counts"]))} by class). Specificity (Sp), sensitivity (Se) and Score = \
(Sp + Se) / 2 in percent, last epoch, nothing chosen on test; ± is the sample standard deviation over seeds. Always \
answering "normal" scores 50.

## Test clips
{markdown(counts)}
## Mean over seeds
{markdown(pretty(methods))}{left_out if variants else ""}
{_differences_section(tables["contrasts"], home)}{_claims_section(profile, predictions)}## Every number
{"".join(f"- [{name}]({home}{name}): {what}{chr(10)}" for name, what in files.items())}
## Figures
{"".join(f"- [{name}]({home}{name}){chr(10)}" for name in pictures)}"""


def _differences_section(contrasts: pd.DataFrame, home: str) -> str:
    """The table of contrasts as a section, where a study has any; of a long one the intervals that exclude 0."""
    if not len(contrasts):
        return ""
    clear = contrasts[(contrasts["low"] > 0) | (contrasts["high"] < 0)]
    table = contrasts if len(contrasts) <= MOST_ROWS else clear
    which = "" if table is contrasts else f"The {len(clear)} rows whose interval excludes 0; all are in the CSV. "
    return f"""## Differences
{which}Every method against CE (cross-entropy) and every variant against its method, with 95 % intervals over \
patients and seeds (bootstrap, the same draws for both). p: by swapping the two methods' answers patient by patient, \
and seed by seed; "p Holm": the larger of the two, corrected for the {len(contrasts)} comparisons of \
[contrasts.csv]({home}contrasts.csv). Of twenty intervals one excludes 0 by chance: a row alone proves little.

{markdown(table.assign(row=table["row"].map(shown)))}
"""


def verdicts(profile: str, predictions: pd.DataFrame) -> pd.DataFrame:
    """`claims.judge`; without the paper's numbers where the recordings are synthetic, for they don't compare."""
    table = claims.judge(profile, predictions)
    return table if profiles.load_profile(profile).recorded else table.drop(columns="paper")


def _claims_section(profile: str, predictions: pd.DataFrame) -> str:
    """The claims as a section, where the profile trains and tests as the paper's claims suppose."""
    study = profiles.load_profile(profile)
    if (study.train_on.removeprefix("synthetic-"), study.split) != ("icbhi", "official"):
        return ""
    return f"""## Claims
Differences with 95 % intervals over patients and seeds (bootstrap). "for", "against", "undecided" say what this \
profile's interval shows; the verdict is about the paper's claim.

{markdown(verdicts(profile, predictions))}
"""


def folder_of(row) -> str:
    """Where a run lies in runs/<profile>/; a variant lies with its method."""
    return f"{row['backbone']}-{row['method'].split()[0]}/{row['run']}"


def write_results(profile: str, predictions: pd.DataFrame) -> Path:
    """Write runs/<profile>/results.md, and the CSV of every table, from predictions."""
    home, found = paths.runs_dir(profile), tables(predictions)
    found["runs"]["folder"] = [folder_of(row) for row in found["runs"].to_dict("records")]
    record = json.loads((home / found["runs"]["folder"].iloc[0] / "run.json").read_text(encoding="utf-8"))
    pictures = [f"figures/{path.name}" for path in sorted((home / "figures").glob("*.png"))]
    write_tables(home, found)
    text = page(profile, predictions, found, record, "", pictures)
    return paths.write_atomically(home / "results.md", lambda part: part.write_text(text, encoding="utf-8"))


def evidence(profile: str, table: str = "predictions") -> pd.DataFrame:
    """A committed table of a study.

    Parameters
    ----------
    table : str
        "predictions" (patients and events are numbers), "histories" of its runs, or a name of `tables`: "contrasts" is
        read at once, where computing it again takes seconds to minutes.
    """
    home = paths.ROOT / "figures" / profile
    if (path := home / f"{table}.parquet").is_file():
        return pd.read_parquet(path)
    if (path := home / f"{table}.csv").is_file():
        return pd.read_csv(path)
    raise ConfigError(f"no {table} of profile '{profile}' are committed in '{home}': `make evidence` writes them")


def records(profile: str) -> list[dict]:
    """Records of a committed study's runs: run.json of each, and its folder's name as "run"."""
    lines = (paths.ROOT / "figures" / profile / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def headline() -> pd.DataFrame:
    """What the README's table rests on: the sc study, but its fine-tuned mn04 from depth, which has more seeds."""
    wide, deep = evidence("sc"), evidence("depth")
    return pd.concat([deep, wide[~wide["backbone"].isin(deep["backbone"].unique())]], ignore_index=True)
