"""The notebooks as one book: check parameters, run headless, build the committed .ipynb from their source."""

import ast
import contextlib
import hashlib
import json
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
from rich.progress import Progress
from traitlets.config import Config as KernelConfig

from .. import paths
from ..errors import ConfigError, QlungError
from ..training import experiments, profiles
from . import lessons, results

ENCRYPTED = KernelConfig({"KernelManager": {"transport_encryption": "auto"}})  # else clips travel as plain text


def parameters_of(notebook: Path) -> dict:
    """Names and default values of a notebook's cell tagged "parameters"."""
    cells = [c for c in jupytext.read(notebook).cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ConfigError(f"{notebook.name} has {len(cells)} cells tagged 'parameters', expected one")
    assigned = [node for node in ast.parse(cells[0].source).body if isinstance(node, ast.AnnAssign)]
    return {node.target.id: ast.literal_eval(node.value) for node in assigned}


def check_parameters(notebook: Path, given: dict) -> dict:
    """Refuse a misspelt or ill-typed parameter before anything runs (papermill would pass it on)."""
    known = parameters_of(notebook)
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"{notebook.name} has no parameter '{name}': it takes {', '.join(known)}")
        if type(value) is not type(known[name]):
            want = type(known[name]).__name__
            raise ConfigError(f"{notebook.name}: {name} should be {want}, it is {value!r} ({type(value).__name__})")
    return given


def run_notebook(notebook: Path, output: Path, parameters: dict) -> Path:
    """Execute one notebook headless; a failed one is kept as ``*.failed.ipynb`` beside where it would have gone."""
    import papermill

    check_parameters(notebook, parameters)
    part = output.with_suffix(".failed.ipynb")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            notebook, part, parameters, progress_bar=False, kernel_name="python3", config=ENCRYPTED
        )
    except papermill.PapermillExecutionError as error:
        raise QlungError(f"{notebook.name} stopped: {error.ename}: {error.evalue}. See '{part}'.") from error
    part.replace(output)
    return output


def _key(notebook: Path, parameters: dict, corpora) -> str:
    """Hash of all a notebook's result depends on: its source, qlung, profiles, claims, committed studies and data."""
    code = [notebook, paths.EXPERIMENTS, paths.CLAIMS, *sorted((paths.ROOT / "qlung").rglob("*.py"))]
    code += sorted(paths.ROOT.glob("figures/*/*.parquet"))
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for path in code:
        digest.update(path.read_bytes())
    for corpus in corpora:
        digest.update(corpus.fingerprint().encode())
    return digest.hexdigest()


@contextlib.contextmanager
def progress_bar(title: str):
    """Yield ``progress(share done, line)``: a bar in a terminal, else a plain line, at most one in fifteen seconds."""
    if sys.stdout.isatty():
        with Progress(transient=True) as bar:
            task = bar.add_task(title, total=1.0)
            yield lambda share, line: bar.update(task, completed=share, description=line)
        return
    last = [time.monotonic()]

    def progress(share, line):
        if time.monotonic() - last[0] > 15 or share == 1:
            last[0] = time.monotonic()
            print(f"{title}: {100 * share:3.0f} % {line}", flush=True)

    yield progress


def reproduce(profile: str, data: str = "", force: bool = False) -> pd.DataFrame:
    """Train a profile's runs, run the book in order and write the results page, reusing what has not changed.

    Returns
    -------
    DataFrame
        One row a step: step, what ("ran" or "reused"), seconds.
    """
    corpora = profiles.open_corpora(profile, data)
    out = paths.runs_dir(profile)
    try:
        (out / "notebooks").mkdir(parents=True, exist_ok=True)
        (out / "notebooks" / ".writable").touch()
    except OSError as error:
        what = f"cannot write results to '{out}': {error.strerror}"
        raise ConfigError(f"{what}. Make it writable, or set QLUNG_RUNS to another folder.") from error
    parameters = {"profile": profile, "data": str(Path(data).expanduser().resolve()) if data else ""}
    steps, started = [], time.perf_counter()
    with progress_bar("training") as progress:
        trained = []
        predictions = experiments.train_all(
            profile, data, lambda share, line: (trained.append(line), progress(share, line))
        )
    steps.append(("train every run", "ran" if trained else "reused", time.perf_counter() - started))
    notebooks = sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb"))
    with progress_bar("notebooks") as progress:
        for index, notebook in enumerate(notebooks):
            progress(index / len(notebooks), notebook.stem)
            started, output = time.perf_counter(), out / "notebooks" / notebook.name
            stamp, key = output.with_suffix(".key"), _key(notebook, parameters, corpora)
            fresh = output.is_file() and stamp.is_file() and stamp.read_text() == key and not force
            if not fresh:
                stamp.unlink(missing_ok=True)
                run_notebook(notebook, output, parameters)
                stamp.write_text(key)
            steps.append((notebook.stem, "reused" if fresh else "ran", time.perf_counter() - started))
    results.write_results(profile, predictions)
    return pd.DataFrame(steps, columns=["step", "what", "seconds"])


def from_source(source: Path) -> nbformat.NotebookNode:
    """The notebook of a py:percent file, without outputs; cell ids are derived, so a rebuild has the same bytes."""
    notebook = jupytext.read(source)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for index, cell in enumerate(notebook.cells):
        cell.id = hashlib.sha256(f"{source.stem} {index}".encode()).hexdigest()[:8]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    paired = {"formats": "ipynb,py:percent"}
    notebook.metadata = nbformat.from_dict({"jupytext": paired, "kernelspec": kernel})
    return notebook


def build(names: list[str] | None = None) -> list[Path]:
    """Execute every notebook's source on the demo profile and write the .ipynb beside it; and the exercises."""
    from nbclient import NotebookClient

    lessons.write_exercises()
    built = []
    for source in sorted(paths.NOTEBOOKS.glob("[0-9]*.py")):
        if names and source.stem not in names:
            continue
        notebook = from_source(source)
        bare = [dict(cell.metadata) for cell in notebook.cells]
        settings = {"timeout": 900, "kernel_name": "python3", "record_timing": False, "store_widget_state": False}
        NotebookClient(notebook, config=ENCRYPTED, **settings).execute()
        for cell, metadata in zip(notebook.cells, bare, strict=True):
            cell.metadata = nbformat.from_dict(metadata)
            for output in cell.get("outputs", []):  # a widget lives in a kernel, and its name changes every time
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
        notebook.metadata.pop("language_info", None)  # names the patch version of the Python that ran it
        text = re.sub(r"0x[0-9a-f]{8,}", "0x0", nbformat.writes(notebook)) + "\n"
        target = source.with_suffix(".ipynb")
        built.append(paths.write_atomically(target, lambda part, t=text: part.write_text(t)))
    return built
