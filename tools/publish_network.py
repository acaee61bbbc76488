"""Write network/: weights of a finished run, what is known of its training clips, and its card. For maintainers.

    python tools/publish_network.py PROFILE DATA METHOD SEED     # METHOD as in the study's tables: "qlung lam=0.8"

`qlung listen` and notebook 09 answer with it. Recordings and patients are numbered.
"""

import json
import shutil
import sys

import jinja2
import pandas as pd
import safetensors.torch

from qlung import corpora, evaluation, paths
from qlung.book import listen, results
from qlung.errors import QlungError, TrainingError
from qlung.training import experiments, profiles, runs

CARD = paths.ROOT / "tools" / "network.md.jinja"
AGES = ["0 to 2", "3 to 5", "6 to 18"]  # years, as in notebook 07
SHOWN = ["n", "Sp", "Se", "Score", "AUROC", "ECE"]


def publish(profile: str, data: str, method: str, seed: str) -> list:
    """Write network/ from the run of a profile's first backbone."""
    study, (pair,) = profiles.load_profile(profile), profiles.parts(profile, data)
    (row,) = (row for row in study.rows(next(iter(study.backbones)), method, int(seed)) if row[0] == method)
    folder, home = runs.run_folder(profile, row[1], *pair), listen.COMMITTED
    if not runs.is_finished(folder):
        raise TrainingError(f"profile '{profile}' has no finished run {row[1].name}: expected '{folder}'")
    home.mkdir(exist_ok=True)
    clips = listen.clips_of(folder, row[1], pair[0])
    numbers = {name: clips[name].factorize(sort=True)[0] for name in ("event_id", "patient_id")}
    clips["event_id"] = [f"{corpus} clip {n}" for corpus, n in zip(clips["corpus"], numbers["event_id"], strict=True)]
    clips["patient_id"] = numbers["patient_id"]
    clips = clips.astype(dict.fromkeys(clips.filter(regex=r"^e\d+$"), "float16"))
    clips.to_parquet(home / "clips.parquet", index=False, compression="zstd")
    shutil.copyfile(folder / "run.json", home / "run.json")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    needed = {name: value for name, value in weights.items() if not name.startswith(listen.UNUSED)}
    safetensors.torch.save_file(needed, home / "model.safetensors")
    predictions = experiments.stacked({(0, *row): folder}, [pair])
    written = paths.write_atomically(home / "README.md", lambda part: part.write_text(card(predictions), "utf-8"))
    return [written, home]


def card(predictions: pd.DataFrame) -> str:
    """The card, from the run's record and its predictions."""
    record = json.loads((listen.COMMITTED / "run.json").read_text(encoding="utf-8"))
    groups = {"by test": predictions.assign(group="all")}
    groups["by device"] = predictions.assign(group=predictions["listed_device"])
    children = predictions[predictions["corpus"] == "sprsound"]
    years = children["recording_id"].str.split("_").str[1].astype(float)
    named = pd.cut(years, [0, 3, 6, 19], labels=AGES, right=False)
    groups["by age [years]"] = children.assign(group=named.astype(str)).sort_values("group")
    tables = {}
    for name, part in groups.items():
        table = evaluation.measure_table(part, ["corpus", "group"])
        patients = part.groupby(["corpus", "group"])["patient_id"].nunique().rename("patients").reset_index()
        tables[name] = results.markdown(table.merge(patients)[["corpus", "group", "patients", *SHOWN]])
    clips = pd.read_parquet(listen.COMMITTED / "clips.parquet", columns=["corpus", "patient_id"])
    terms, patients = corpora.find(clips["corpus"].iloc[0]).entry["terms"], clips["patient_id"].nunique()
    template = jinja2.Template(CARD.read_text(encoding="utf-8"), keep_trailing_newline=True)
    return template.render(record=record, tables=tables, terms=terms, patients=patients)


if __name__ == "__main__":
    try:
        print(*(f"wrote {path.relative_to(paths.ROOT)}" for path in publish(*sys.argv[1:])), sep="\n")
    except QlungError as error:
        sys.exit(f"{type(error).__name__}: {error}")
