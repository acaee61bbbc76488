"""The notebooks as one book: check parameters, run headless, build the committed .ipynb from their source."""

import ast
import contextlib
import hashlib
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from rich.progress import Progress
from traitlets.config import Config as KernelConfig

from .. import paths
from ..errors import ConfigError, QlungError

ENCRYPTED = KernelConfig({"KernelManager": {"transport_encryption": "auto"}})  # else clips travel as plain text
RUNNING = {"kernel_name": "python3", "config": ENCRYPTED, "coalesce_streams": True}  # prints: one output, however slow
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
}


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
        papermill.execute_notebook(notebook, part, parameters, progress_bar=False, **RUNNING)
    except papermill.PapermillExecutionError as error:
        raise QlungError(f"{notebook.name} stopped: {error.ename}: {error.evalue}. See '{part}'.") from error
    part.replace(output)
    return output


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


def new_notebook(cells: list, name: str) -> nbformat.NotebookNode:
    """A notebook of the book; cell ids are derived from its name, so that a rebuild has the same bytes."""
    for index, cell in enumerate(cells):
        cell["id"] = hashlib.sha256(f"{name} {index}".encode()).hexdigest()[:8]
    return nbformat.v4.new_notebook(cells=cells, metadata=METADATA)


def from_source(source: Path) -> nbformat.NotebookNode:
    """The notebook of a py:percent file, without outputs."""
    return new_notebook(jupytext.read(source).cells, source.stem)


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as it is committed, whoever ran and saved it: nothing in it names a machine, a session or a time.

    Metadata of the notebook are the book's, those of a cell its tags and whether its source is folded. Widgets, which
    live in a kernel, go; addresses in memory become 0x0; cells that ran are counted from 1; prints are one output.
    """
    text = re.sub(r"0x[0-9a-f]{8,}", "0x0", nbformat.writes(notebook))
    notebook = nbformat.reads(text, nbformat.NO_CONVERT)
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        folded = cell.metadata.get("jupyter", {}).get("source_hidden")
        kept = {"tags": cell.metadata.get("tags"), "jupyter": {"source_hidden": True} if folded else None}
        cell.metadata = nbformat.from_dict({name: value for name, value in kept.items() if value})
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        ran = cell.execution_count is not None
        cell.execution_count = count if ran else None
        for output in cell.outputs:
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            if "execution_count" in output:
                output.execution_count = cell.execution_count
        cell.outputs = _one_stream_each(cell.outputs)
    return notebook


def _one_stream_each(outputs: list) -> list:
    """Outputs with what was printed on a stream joined to what was printed on it just before."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output.output_type == "stream" and output.name == last.get("name"):
            last.text += output.text
        else:
            joined.append(output)
    return joined


def normalise_before_saving(model: dict, path: str, contents_manager, **_) -> None:
    """Hook of JupyterLab: a notebook with a source beside it is saved as `build` would write it."""
    source = Path(contents_manager.root_dir, path.strip("/")).with_suffix(".py")
    if model["type"] == "notebook" and source.is_file():
        model["content"] = normalise(nbformat.from_dict(model["content"]))


def copy_exercises() -> None:
    """Make the reader's own copies in notebooks/exercises/mine/, which git ignores; one that is there is left alone."""
    for tracked in sorted((paths.NOTEBOOKS / "exercises").glob("*.ipynb")):
        own = tracked.parent / "mine" / tracked.name
        if not own.exists():
            notebook = nbformat.read(tracked, nbformat.NO_CONVERT)
            notebook.metadata["jupytext"] = {"formats": "ipynb"}  # no .py beside it
            write(notebook, own)


def write(notebook: nbformat.NotebookNode, target: Path) -> Path:
    """Write a notebook as JupyterLab would."""
    text = nbformat.writes(notebook) + "\n"
    return paths.write_atomically(target, lambda part: part.write_text(text, encoding="utf-8"))


def build_one(source: Path) -> Path:
    """Execute a notebook's source on the demo profile and write the .ipynb beside it."""
    from nbclient import NotebookClient

    notebook = from_source(source)
    settings = {"timeout": 900, "record_timing": False, "store_widget_state": False}
    NotebookClient(notebook, **settings, **RUNNING).execute()
    return write(normalise(notebook), source.with_suffix(".ipynb"))


def build(names: list[str] | None = None, progress=lambda share, line: None) -> list[Path]:
    """Execute every notebook's source, as many at once as there are cores, and write .ipynb."""
    from . import engine

    sources = [path for path in sorted(paths.NOTEBOOKS.glob("[0-9]*.py")) if not names or path.stem in names]
    with engine.connect(tasks=len(sources)) as client:
        futures = {client.submit(build_one, source, pure=False): source.stem for source in sources}
        return [engine.result(name, future) for name, future in engine.as_they_end(client, futures, progress)]
