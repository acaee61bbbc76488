"""JupyterLab as `make lab` starts it: the whole project in view, notebook 00 open, only what was typed is saved."""

import nbformat
from nbformat.sign import NotebookNotary

from qlung import paths
from qlung.book import notebooks

c = get_config()  # noqa: F821 (JupyterLab defines it)
c.ServerApp.root_dir = str(paths.ROOT)
c.LabApp.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.ContentsManager.hide_globs = ["__pycache__", "*.pyc", "*.egg-info", "[0-9][0-9]_*.py"]  # the last: paired sources
c.FileContentsManager.pre_save_hook = notebooks.normalise_before_saving

# The reader's own copies of the exercises, which git ignores; one that is there is left alone.
for tracked in (paths.NOTEBOOKS / "exercises").glob("*.ipynb"):
    own = tracked.parent / "mine" / tracked.name
    if not own.exists():
        notebook = nbformat.read(tracked, nbformat.NO_CONVERT)
        notebook.metadata["jupytext"] = {"formats": "ipynb"}  # no .py beside it
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = cell.source.replace("](../", "](../../")  # it lies one folder deeper
        own.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, own)

# The playgrounds are scripts in the outputs of the book's notebooks; JupyterLab runs scripts of signed notebooks only.
notary = NotebookNotary()
for own in notebooks.book():
    notary.sign(nbformat.read(own, nbformat.NO_CONVERT))
