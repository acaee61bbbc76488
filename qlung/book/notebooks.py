"""The notebooks as one book: check parameters, run headless, and save as they are committed."""

import contextlib
import os
import re
import sys
from pathlib import Path

import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from rich.progress import Progress

from .. import paths
from ..errors import ConfigError, QlungError


class BookKernel(AsyncKernelManager):
    """A kernel of this Python, whatever kernels, matplotlib settings and start-up files of IPython the user has."""

    def __init__(self, **settings):
        super().__init__(transport_encryption="auto", **settings)  # else clips travel as plain text
        self._kernel_spec = KernelSpec(**get_kernel_dict())

    async def start_kernel(self, **settings) -> None:
        """Start it without the user's settings in its environment, and with text in UTF-8."""
        env = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "PYTHONSTARTUP")}
        env |= {"MATPLOTLIBRC": str(STYLE), "IPYTHONDIR": str(paths.cache_dir() / "ipython"), "PYTHONUTF8": "1"}
        await self._async_start_kernel(**settings | {"env": env})


STYLE = Path(__file__).with_name("book.mplstyle")
# Prints make one output, however slow they come.
RUNNING = {"kernel_name": "python3", "kernel_manager_class": BookKernel, "coalesce_streams": True}
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
}


def book() -> list[Path]:
    """The notebooks of the book, in order; a reader's own beside them, or a copy, is none of them."""
    return [path for path in sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb")) if re.fullmatch(r"\d\d_[a-z_]+", path.stem)
            and path.with_suffix(".py").is_file()]  # fmt: skip


def check_parameters(notebook: Path, given: dict) -> None:
    """Refuse a misspelt or ill-typed parameter before anything runs (papermill would pass it on)."""
    known = papermill.inspect_notebook(notebook)
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"{notebook.name} has no parameter '{name}': it takes {', '.join(known)}")
        if (want := known[name]["inferred_type_name"]) != type(value).__name__:
            raise ConfigError(f"{notebook.name}: {name} should be {want}, it is {value!r} ({type(value).__name__})")


def run_notebook(notebook: Path, output: Path, parameters: dict) -> Path:
    """Execute one notebook headless; a failed one is kept as ``*.failed.ipynb`` beside where it would have gone."""
    check_parameters(notebook, parameters)
    part = output.with_suffix(".failed.ipynb")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with paths.naming(part):
            papermill.execute_notebook(notebook, part, parameters, progress_bar=False, **RUNNING)
    except papermill.PapermillExecutionError as error:
        raise QlungError(f"{notebook.name} stopped: {error.ename}: {error.evalue}. See '{part}'.") from error
    except DeadKernelError as error:
        why = "its kernel died, often because memory ran out. Close other programs"
        raise QlungError(f"{notebook.name}: {why}; the same command goes on from here. See '{part}'.") from error
    part.replace(output)
    return output


@contextlib.contextmanager
def progress_bar(title: str):
    """Yield ``progress(share done, line)``: a bar in a terminal, else a plain line per percent."""
    with Progress(transient=True, disable=not sys.stdout.isatty()) as bar:
        task, shown = bar.add_task(title, total=1.0), {0}

        def progress(share, line):
            bar.update(task, completed=share, description=line)
            percent = int(100 * share)
            if bar.disable and percent not in shown:
                shown.add(percent)
                print(f"{title}: {percent:3} % {line}", flush=True)

        yield progress


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
    return CoalesceStreamsPreprocessor().preprocess(notebook, {})[0]


def normalise_before_saving(model: dict, path: str, contents_manager, **_) -> None:
    """Hook of JupyterLab: a notebook with a source beside it is saved as it is committed."""
    source = Path(contents_manager.root_dir, path.strip("/")).with_suffix(".py")
    if model["type"] == "notebook" and source.is_file():
        model["content"] = normalise(nbformat.from_dict(model["content"]))
