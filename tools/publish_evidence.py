"""Write what is committed of a finished study: figures/<profile>/, RESULTS.md and the README's table. For maintainers.

    python tools/publish_evidence.py PROFILE [DATA]     # from the runs of a profile: `make evidence`
    python tools/publish_evidence.py                    # pages and tables again, from what is committed

A long study is published row by row: rows that are not finished yet are left out, those that were committed before and
are not here stay. Every run's record names its commit.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from qlung import evaluation, paths
from qlung.book import results
from qlung.book.results import records
from qlung.errors import QlungError, TrainingError
from qlung.training import experiments, profiles

KEPT = ["corpus", "backbone", "method", "seed", "run", "patient_id", "event_id", "label", "predicted", "aqs",
        "device", "listed_device"]  # fmt: skip
DETAILS = [*(f"l{k}" for k in range(4)), "seconds", *(f"c{k}" for k in range(4))]  # log p, length and cosines
BEGIN, END = "<!-- {}: written by `make evidence` -->\n", "<!-- end of the table -->"


def without_names(predictions: pd.DataFrame, of_variants: int = 0) -> pd.DataFrame:
    """Predictions without names of recordings: patients and events are numbered.

    Tables and intervals can be computed from them again without any recording and without training. Of methods all
    of `DETAILS` stay, probabilities as logarithms, and of their variants the first ``of_variants`` columns.
    """
    kept = predictions[KEPT].copy()
    kept[DETAILS[:4]] = np.log(predictions[evaluation.PROBABILITIES].clip(lower=1e-38))
    kept[DETAILS[4:]] = predictions[DETAILS[4:]]
    kept.loc[kept["method"].str.contains(" "), DETAILS[of_variants:]] = np.nan
    for name in ("patient_id", "event_id"):
        kept[name] = (kept["corpus"] + kept[name]).factorize(sort=True)[0].astype("int32")
    kept = kept.astype({name: "int8" for name in ("seed", "label", "predicted")})
    digits = {name: 4 if name in DETAILS else 3 for name in ("aqs", *DETAILS)}
    return kept.astype(dict.fromkeys(digits, "float32")).round(digits)


def finished(profile: str, pairs: list) -> dict:
    """Folders of rows all of whose runs are there, for `experiments.stacked`; whichever commit made them."""
    there = {}
    for path in paths.runs_dir(profile).glob("*/*/run.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        there[results.settings(record), record["data"], *record["tests"].values()] = path.parent
    prints = [[part.fingerprint() for part in (train, *tests.values())] for train, tests in pairs]
    folders = {}
    for label, config in profiles.load_profile(profile).rows():
        row = {(i, label, config): there.get((config, *names)) for i, names in enumerate(prints)}
        folders |= row if all(row.values()) else {}
    return folders


def with_committed(table: pd.DataFrame, path: Path, still: set[str]) -> pd.DataFrame:
    """The table, after the rows that were committed before: of runs ``still`` in the profile that are not replaced."""
    if not path.is_file():
        return table
    before, keys = pd.read_parquet(path), ["backbone", "method", "seed"]
    replaced = before.set_index(keys).index.isin(table.set_index(keys).index)
    return pd.concat([before[before["run"].isin(still) & ~replaced], table])


def publish(profile: str, data: str = "") -> list[Path]:
    """Add a profile's finished rows to figures/<profile>/, then write every page."""
    study, pairs, home = profiles.load_profile(profile), profiles.parts(profile, data), paths.ROOT / "figures" / profile
    if not (folders := finished(profile, pairs)):
        raise TrainingError(f"no row of profile '{profile}' is finished in '{paths.runs_dir(profile)}'")
    home.mkdir(parents=True, exist_ok=True)
    before, rows = results.records(profile), study.configs()
    still = {record["run"] for record in before if results.settings(record) in rows}
    of_variants = 4 if study.split == "tune" else 0  # whose ranking needs their probabilities
    new = without_names(experiments.stacked(folders, pairs), of_variants)
    kept = with_committed(new, home / "predictions.parquet", still)
    added = {folder.name: json.loads((folder / "run.json").read_text(encoding="utf-8")) for folder in folders.values()}
    named = kept[["backbone", "method", "seed", "run"]].drop_duplicates()
    every = {record["run"]: record for record in before} | {name: {"run": name} | one for name, one in added.items()}
    curves = []
    for (_, label, config), folder in folders.items():
        run = {"backbone": config.backbone, "method": label, "seed": config.seed, "run": folder.name}
        curves += [] if " " in label else [pd.read_csv(folder / "history.csv").assign(**run)]
    write_records(home, [every[name] for name in named["run"]])
    tables = {"predictions": kept}
    if curves:
        tables["histories"] = with_committed(pd.concat(curves), home / "histories.parquet", still)
    for name, table in tables.items():
        table.to_parquet(home / f"{name}.parquet", index=False, compression="zstd")
    for picture in (paths.runs_dir(profile) / "figures").glob("0[24-8]-*"):  # 01 draws single recordings, 03 toys
        if picture.suffix in (".png", ".svg", ".csv"):
            shutil.copyfile(picture, home / picture.name)
    return rebuild()


def write_records(home: Path, records: list[dict]) -> None:
    """Write records of runs, one per line, sorted by the run's name."""
    lines = [json.dumps(record) + "\n" for record in sorted(records, key=lambda record: record["run"])]
    (home / "runs.jsonl").write_text("".join(lines), encoding="utf-8")


def rebuild() -> list[Path]:
    """Every table, results page and the README's table from the committed evidence."""
    written = []
    for path in sorted((paths.ROOT / "figures").glob("*/predictions.parquet")):
        home, profile = path.parent, path.parent.name
        kept = results.evidence(profile)
        found = results.tables(kept)
        written += results.write_tables(home, found)
        at, target = ("figures/sc/", paths.ROOT / "RESULTS.md") if profile == "sc" else ("", home / "results.md")
        pictures = [path.name for path in sorted(home.glob("*.png"))]
        text = results.page(profile, kept, found, records(profile), at, pictures)
        written.append(paths.write_atomically(target, lambda part, t=text: part.write_text(t, encoding="utf-8")))
    return [*written, write_readme()]


def first_scores() -> pd.DataFrame:
    """The README's first table: cross-entropy and QLung, fine-tuned, trained on either corpus."""
    tables = []
    for profile, tested_on in {"sc": ["icbhi", "sprsound", "kauh"], "sprsound": ["sprsound"]}.items():
        kept = results.evidence(profile).query("backbone == 'mn04' and method in ('ce', 'qlung')")
        table = evaluation.scores(kept[kept["corpus"].isin(tested_on)])[1].query("backbone == 'mn04'")
        table = results.pretty(table).rename(columns={"corpus": "tested on", "backbone": "trained on"})
        tables.append(table.assign(**{"trained on": profiles.load_profile(profile).train_on}))
    return pd.concat(tables)[["trained on", "tested on", "method", "Sp", "Se", "Score", "seeds"]]


def write_readme() -> Path:
    """The README with its two tables of results written anew."""
    readme, tables = paths.ROOT / "README.md", {"scores": first_scores(), "claims": results.committed_verdicts()}
    text = readme.read_text(encoding="utf-8")
    for name, table in tables.items():
        before, begin, rest = text.partition(BEGIN.format(name))
        text = before + begin + results.markdown(table) + END + rest.partition(END)[2]
    return paths.write_atomically(readme, lambda part: part.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    try:
        for path in publish(*sys.argv[1:]) if sys.argv[1:] else rebuild():
            print(f"wrote {path.relative_to(paths.ROOT)}")
    except QlungError as error:
        sys.exit(f"{type(error).__name__}: {error}")
