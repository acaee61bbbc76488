"""JupyterLab as `make lab` starts it: the whole project in view, notebook 00 open, only what was typed is saved."""

from qlung import paths
from qlung.book import notebooks

c = get_config()  # noqa: F821 (JupyterLab defines it)
c.ServerApp.root_dir = str(paths.ROOT)
c.LabApp.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.ContentsManager.hide_globs = ["__pycache__", "*.pyc", "*.egg-info", "[0-9][0-9]_*.py"]  # the last: paired sources
c.FileContentsManager.pre_save_hook = notebooks.normalise_before_saving
notebooks.copy_exercises()
