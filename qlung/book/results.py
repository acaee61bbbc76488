"""Tables and pages of results: of a profile's runs, and of the studies that are committed."""

import functools
import json
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from .. import evaluation, paths
from ..corpora import CLASSES, registry
from ..errors import ConfigError, choices
from ..evaluation import claims
from ..margins import METHODS
from ..quality import sources
from ..training import Config, fit, profiles
from .figures import METHOD_NAMES


def shown(row: str) -> str:
    """A row's name for people; one whose quality was fitted on SPRSound's labels is always labelled as such."""
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
    digits = [4 if str(name).split()[0] == "p" else 2 for name in table.columns]
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    for row in table.itertuples(index=False):
        cells = [f"{v:.{n}f}" if isinstance(v, float) else str(v) for v, n in zip(row, digits, strict=True)]
        lines.append(["-" if cell == "nan" else cell.replace("|", "\\|") for cell in cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


MOVES = 0.5  # sd of a frozen-encoder row's Score on another processor: ten rows moved by -1.1 to +0.4
MOST_ROWS = 40  # of a table on a page; longer ones are CSV beside it
TEMPLATE = Path(__file__).with_name("results.md.jinja")


def tables(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Every table of results, from predictions alone, by the name of its CSV.

    Returns
    -------
    dict
        "scores" (mean and sd over seeds), "runs" (every run), "measures" (mean over seeds of every measure that
        notebook 06 explains) and "contrasts" (`evaluation.contrasts`); where settings were chosen on development sets,
        `evaluation.ranking` as "ranking".
    """
    runs, means = evaluation.scores(predictions)
    chosen = {"ranking": evaluation.ranking(predictions)} if "devices" in set(predictions["corpus"]) else {}
    return {"scores": means, "runs": runs, "measures": evaluation.every_measure(predictions),
            "contrasts": evaluation.contrasts(predictions)} | chosen  # fmt: skip


def write_tables(home: Path, tables: dict[str, pd.DataFrame]) -> list[Path]:
    """Write tables as CSV, with six decimals: the same bytes on another processor."""
    style = {"index": False, "float_format": "%.6f", "encoding": "utf-8"}
    written = {home / f"{name}.csv": functools.partial(table.to_csv, **style) for name, table in tables.items()}
    return [paths.write_atomically(path, write) for path, write in written.items()]


def page(profile: str, predictions: pd.DataFrame, tables: dict, records: list, home: str, pictures: list[str]) -> str:
    """The results page as Markdown.

    Parameters
    ----------
    tables : dict
        From `tables`.
    records : list of dict
        run.json of every run, for the provenance line.
    home : str
        Where the CSV files lie, relative to the page: "" or "figures/sc/".
    pictures : list of str
        Names of the pictures in ``home``.
    """
    clips = predictions.drop_duplicates(["corpus", "event_id"])
    counts = pd.crosstab(clips["corpus"], clips["label"]).reindex(columns=range(4), fill_value=0)
    counts = counts.set_axis(CLASSES, axis=1).assign(patients=clips.groupby("corpus")["patient_id"].nunique())
    means, runs, contrasts = tables["scores"], tables["runs"], tables["contrasts"]
    variant = means["method"].str.contains(" ") & (means["backbone"] != "none")
    rows = contrasts if len(contrasts) <= MOST_ROWS else contrasts.query("low > 0 or high < 0")
    study = profiles.load_profile(profile)
    trained_on = study.train_on.removeprefix("synthetic-")
    template = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), trim_blocks=True, keep_trailing_newline=True)
    return template.render(
        profile=profile, record=records[0], home=home, pictures=pictures, counts=markdown(counts.reset_index()),
        commits=sorted({one["commit"][:12] for one in records}), dirty=any(one["dirty"] for one in records),
        processors=sorted({one.get("processor", one["device"]) for one in records}),
        means=markdown(pretty(means[~variant])), variants=variant.sum(), comparisons=len(contrasts), rows=len(rows),
        ranking=markdown(tables["ranking"]) if "ranking" in tables else "", folds=study.split in ("folds", "tune"),
        differences=markdown(rows.assign(row=rows["row"].map(shown))), runs=runs["run"].nunique(),
        committed="folder" not in runs, synthetic=not study.recorded,  # of a committed study there are no folders
        verdicts=markdown(verdicts(profile, predictions)) if (trained_on, study.split) == ("icbhi", "official") else "",
        primary="" if "ranking" in tables else markdown(claims.primary(predictions, trained_on)), trained_on=trained_on,
    )  # fmt: skip


def verdicts(profile: str, predictions: pd.DataFrame) -> pd.DataFrame:
    """`claims.judge`; without the paper's numbers where the recordings are synthetic, for they don't compare."""
    known = {"better": METHODS, "than": METHODS, "corpus": registry.sources()}
    for claim in claims.load():
        if wrong := [f"'{claim[key]}': {choices(claim[key], known[key])}" for key in known
                     if key in claim and claim[key] not in known[key]]:  # fmt: skip
            raise ConfigError(f"claims.toml, {claim['id']}: unknown {wrong[0]}")
    table = claims.judge(profile, predictions)
    return table if profiles.load_profile(profile).recorded else table.drop(columns="paper")


def folder_of(row) -> str:
    """Where a run lies in runs/<profile>/; a variant lies with its method."""
    return f"{row['backbone']}-{row['method'].split()[0]}/{row['run']}"


def write_results(profile: str, predictions: pd.DataFrame) -> Path:
    """Write runs/<profile>/results.md, and the CSV of every table, from predictions."""
    home, found = paths.runs_dir(profile), tables(predictions)
    found["runs"]["folder"] = [folder_of(row) for row in found["runs"].to_dict("records")]
    files = [home / folder / "run.json" for folder in found["runs"]["folder"].unique()]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    pictures = [f"figures/{path.name}" for path in sorted((home / "figures").glob("*.png"))]
    write_tables(home, found)
    text = page(profile, predictions, found, records, "", pictures)
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
        found = pd.read_parquet(path)
        if "l0" in found:  # studies since November 2026 keep logarithms: p has no digits left where a network is sure
            found[evaluation.PROBABILITIES] = np.exp(found.filter(regex="^l[0-3]$"))
        return found
    if (path := home / f"{table}.csv").is_file():
        return pd.read_csv(path)
    raise ConfigError(f"no {table} of profile '{profile}' are committed in '{home}': `make evidence` writes them")


def records(profile: str) -> list[dict]:
    """Records of a committed study's runs, which may be none: run.json of each, and its folder's name as "run"."""
    path = paths.ROOT / "figures" / profile / "runs.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def settings(record: dict) -> Config:
    """What a record's run was trained with; a newer setting had its default, one that is gone is ignored."""
    return Config(**{name: value for name, value in record["config"].items() if name in Config.__dataclass_fields__})


def committed(profile: str) -> set[Config]:
    """The settings of every row that is committed of a study, its seed among them."""
    return set(map(settings, records(profile)))


def retrained(profile: str, data: str = "", most: int = 10, progress=lambda share, line: None, **which) -> pd.DataFrame:
    """Train committed rows of a study again, under runs/retrained, and compare their mean Score with the committed one.

    Another processor is another rounding, and after some steps another network: single rows move, by `MOVES` points
    (sd), their mean by little.

    Parameters
    ----------
    most : int
        How many rows, in the profile's order; one ``backbone``, ``method`` or ``seed`` can be named.

    Returns
    -------
    DataFrame
        By corpus: rows, committed and here (mean Score), difference, band (three standard errors of it), agrees.
    """
    (train, tests), *folds = profiles.parts(profile, data)
    known, rows = committed(profile), profiles.load_profile(profile).rows(**which)
    rows = [(label, config) for label, config in rows if config in known][:most]
    if folds or not rows:
        raise ConfigError(f"profile '{profile}' has folds, or no such row in figures/: nothing to train again")
    tables = []
    for i, (label, config) in enumerate(rows):
        run = fit(config, train, tests, "retrained")
        tables.append(run.predictions().assign(backbone=config.backbone, method=label, seed=config.seed))
        progress((i + 1) / len(rows), config.name)
    keys = ["corpus", "backbone", "method", "seed"]
    now, before = (evaluation.score_table(table, keys) for table in (pd.concat(tables), evidence(profile)))
    both = now.merge(before, on=[*keys, "n"], suffixes=(" here", " committed")).groupby("corpus", sort=False)
    out = both[["Score committed", "Score here"]].mean().reset_index()
    out["difference"] = out["Score here"] - out["Score committed"]
    out["band"] = 3 * MOVES / len(rows) ** 0.5
    return out.assign(rows=both.size().to_numpy(), agrees=out["difference"].abs() <= out["band"])


def headline() -> pd.DataFrame:
    """Predictions behind the README's table: of mn04 fine-tuned (sc), and of the methods with it frozen (breadth)."""
    tables = [evidence("sc"), evidence("breadth").loc[lambda table: ~table["method"].str.contains(" ")]]
    return pd.concat(tables, ignore_index=True)


def committed_verdicts() -> pd.DataFrame:
    """`verdicts` of the committed studies, by the corpus that the networks were trained on."""
    table = verdicts("sc", headline()).rename(columns={"here": "trained on ICBHI"})
    reverse = claims.judge("sprsound", evidence("sprsound"), "sprsound")["here"]
    return table.assign(**{"trained on SPRSound": reverse, "verdict": table.pop("verdict")})
