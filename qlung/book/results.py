"""Tables and pages of results: of a profile's runs, and of the studies that are committed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from .. import evaluation, paths
from ..corpora import CLASSES
from ..errors import ConfigError
from ..evaluation import claims
from ..quality import sources
from ..training import experiments, profiles
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


def page(profile: str, predictions: pd.DataFrame, record: dict, runs_at: str, pictures: list[str]) -> str:
    """The results page as Markdown, from predictions alone.

    Parameters
    ----------
    record : dict
        One run's run.json, for the provenance line.
    runs_at : str
        Where a run's record lies, with {folder} or {run}.
    pictures : list of str
        Paths relative to the page.
    """
    runs, table = evaluation.scores(predictions)
    clips = predictions.drop_duplicates(["corpus", "event_id"]).groupby(["corpus", "label"], sort=False).size()
    counts = clips.reset_index(name="n").pivot_table("n", "corpus", "label", fill_value=0)
    counts = counts.reindex(columns=range(4), fill_value=0).set_axis(CLASSES, axis=1).astype(int).reset_index()
    people = predictions.groupby("corpus")["patient_id"].nunique()
    counts = counts.assign(patients=counts["corpus"].map(people))
    runs["run"] = [f"[{r.run}]({runs_at.format(folder=_folder(r._asdict()), run=r.run)})" for r in runs.itertuples()]
    every, against = evaluation.every_measure(predictions), evaluation.contrasts(predictions)
    every["method"], against["row"] = every["method"].map(shown), against["row"].map(shown)
    return f"""# Results of profile {profile}

Code {record["commit"][:12]}{" with uncommitted changes" if record["dirty"] else ""}, Python {record["python"]}, \
torch {record["packages"]["torch"]}, {record["device"]}. Trained on {sum(record["train_counts"])} clips \
({" / ".join(map(str, record["train_counts"]))} by class). Sp, Se and Score in percent, last epoch, nothing chosen on \
test; ± is the sample standard deviation over seeds. Always answering "normal" scores 50.

## Test clips
{markdown(counts)}
## Mean over seeds
{markdown(pretty(table))}
{_differences_section(against)}## Every measure
Mean over seeds, in percent; notebook 06 says what each one is. Probabilities of variants (two words) are not kept.

{markdown(every)}
{_claims_section(profile, predictions)}## Every run
{markdown(runs)}
## Figures
{"".join(f"![{path.rsplit('/', 1)[-1]}]({path}){chr(10)}" for path in pictures)}"""


def _differences_section(against: pd.DataFrame) -> str:
    """The table of `contrasts` as a section, where a study has any."""
    if not len(against):
        return ""
    return f"""## Differences
Every method against CE and every variant against its method, with 95 % intervals over patients and seeds (bootstrap, \
the same draws for both). p: by swapping the two methods' answers patient by patient, and seed by seed; "p Holm": the \
larger of the two, corrected for the {len(against)} comparisons on this page. Of twenty intervals one excludes 0 by \
chance: a row alone proves little.

{markdown(against)}
"""


def _claims_section(profile: str, predictions: pd.DataFrame) -> str:
    """The claims as a section, where the profile trains and tests as the paper's claims suppose."""
    study = profiles.load_profile(profile)
    if (study.train_on, study.split) != ("icbhi", "official"):
        return ""
    return f"""## Claims
Differences with 95 % intervals over patients and seeds (bootstrap). "for", "against", "undecided" say what this \
profile's interval shows; the verdict is about the paper's claim.

{markdown(claims.judge(profile, predictions))}
"""


def _folder(row) -> str:
    """Where a run lies in runs/<profile>/; a variant lies with its method."""
    return f"{row['backbone']}-{row['method'].split()[0]}/{row['run']}"


def write_results(profile: str, predictions: pd.DataFrame) -> Path:
    """Write runs/<profile>/results.md and scores.csv from predictions."""
    home, first = paths.runs_dir(profile), predictions.iloc[0]
    record = json.loads((home / _folder(first) / "run.json").read_text())
    pictures = [f"figures/{path.name}" for path in sorted((home / "figures").glob("*.png"))]
    text = page(profile, predictions, record, "{folder}/run.json", pictures)
    table = evaluation.scores(predictions)[1]
    paths.write_atomically(home / "scores.csv", lambda part: table.to_csv(part, index=False, float_format="%.4f"))
    return paths.write_atomically(home / "results.md", lambda part: part.write_text(text))


EVIDENCE = ["corpus", "backbone", "method", "seed", "run", "patient_id", "event_id", "label", "predicted", "aqs",
            "device"]  # fmt: skip
DETAILS = [f"{letter}{k}" for letter in "pc" for k in range(4)]


def histories(profile: str, predictions: pd.DataFrame) -> pd.DataFrame:
    """history.csv of every run behind a table of predictions, stacked, with backbone, method, seed and run."""
    out = []
    for row in predictions[["backbone", "method", "seed", "run"]].drop_duplicates().to_dict("records"):
        out.append(pd.read_csv(paths.runs_dir(profile) / _folder(row) / "history.csv").assign(**row))
    return pd.concat(out, ignore_index=True)


def evidence(profile: str, table: str = "predictions") -> pd.DataFrame:
    """A committed table of a study: its "predictions" (patients and events are numbers) or its runs' "histories"."""
    path = paths.ROOT / "figures" / profile / f"{table}.parquet"
    if not path.is_file():
        raise ConfigError(f"no {table} of profile '{profile}' are committed ('{path}'): `qlung evidence` writes them")
    return pd.read_parquet(path)


def publish(profile: str, data: str = "", progress=lambda share, line: None) -> list[Path]:
    """Write what is committed of a study: figures/<profile>/, and from that RESULTS.md and the README's table.

    Predictions go in without names of recordings: patients and events are numbered, so that tables and intervals can
    be computed again without any recording and without training. Probabilities, cosines and histories go in for
    methods, not for their variants.
    """
    predictions, home = experiments.train_all(profile, data, progress), paths.ROOT / "figures" / profile
    kept = predictions[EVIDENCE + DETAILS].copy()
    kept.loc[kept["method"].str.contains(" "), DETAILS] = np.nan
    for name in ("patient_id", "event_id"):
        kept[name] = (kept["corpus"] + kept[name]).factorize(sort=True)[0].astype("int32")
    kept = kept.astype({name: "int8" for name in ("seed", "label", "predicted")})
    digits = {name: 4 if name in DETAILS else 3 for name in ("aqs", *DETAILS)}
    kept = kept.astype(dict.fromkeys(digits, "float32")).round(digits)
    (home / "runs").mkdir(parents=True, exist_ok=True)
    for old in [*home.glob("*.*"), *home.glob("runs/*.json")]:
        old.unlink()
    kept.to_parquet(home / "predictions.parquet", index=False, compression="zstd")
    curves = histories(profile, predictions[~predictions["method"].str.contains(" ")])
    curves.to_parquet(home / "histories.parquet", index=False, compression="zstd")
    for run in kept[["backbone", "method", "run"]].drop_duplicates().itertuples():
        record = paths.runs_dir(profile) / _folder(run._asdict()) / "run.json"
        shutil.copyfile(record, home / "runs" / f"{run.run}.json")
    for picture in (paths.runs_dir(profile) / "figures").glob("0[24-8]-*"):  # 01 draws single recordings, 03 toys
        if picture.suffix in (".png", ".svg", ".csv"):
            shutil.copyfile(picture, home / picture.name)
    return rebuild()


def headline() -> pd.DataFrame:
    """What the README's table rests on: the sc study, but its fine-tuned mn04 from depth, which has more seeds."""
    wide, deep = evidence("sc"), evidence("depth")
    return pd.concat([deep, wide[~wide["backbone"].isin(deep["backbone"].unique())]], ignore_index=True)


def rebuild() -> list[Path]:
    """Every results page and the README's table from the committed evidence."""
    written = []
    for path in sorted((paths.ROOT / "figures").glob("*/predictions.parquet")):
        home, profile = path.parent, path.parent.name
        kept, main = pd.read_parquet(path), profile == "sc"
        record = json.loads((home / "runs" / f"{kept['run'].iloc[0]}.json").read_text())
        at = f"figures/{profile}/" if main else ""
        pictures = [f"{at}{picture.name}" for picture in sorted(home.glob("*.png"))]
        target = paths.ROOT / "RESULTS.md" if main else home / "results.md"
        text = page(profile, kept, record, f"{at}runs/{{run}}.json", pictures)
        written.append(paths.write_atomically(target, lambda part, t=text: part.write_text(t)))
    kept = headline()
    readme = paths.ROOT / "README.md"
    begin, end = "<!-- results: written by `make evidence` -->\n", "<!-- end of results -->"
    before, _, rest = readme.read_text().partition(begin)
    first = evaluation.scores(kept[kept["method"].isin(["ce", "qlung"])])[1]
    at = dict.fromkeys(kept["backbone"], "RESULTS.md")
    at |= dict.fromkeys(evidence("depth")["backbone"], "figures/depth/results.md")
    linked = pretty(first).assign(backbone=[f"[{b}]({at[b]})" if b in at else b for b in first["backbone"]])
    table = markdown(linked) + "\n" + markdown(claims.judge("sc", kept))
    text = before + begin + table + end + rest.partition(end)[2]
    return [*written, paths.write_atomically(readme, lambda part: part.write_text(text))]
