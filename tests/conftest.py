"""Shared fixtures. Real recordings are used when they are beside the project, in the owners' layouts or restorable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from qlung import paths
from qlung.corpora import synthetic

SHARED = paths.ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory):
    """Tests never touch the user's cache or runs."""
    home = tmp_path_factory.mktemp("qlung")
    os.environ["QLUNG_CACHE"], os.environ["QLUNG_RUNS"] = str(home / "cache"), str(home / "runs")
    if (weights := SHARED.parent / "weights").is_dir():
        os.environ.setdefault("QLUNG_WEIGHTS", str(weights))
    return home


@pytest.fixture(scope="session")
def synthetic_root(own_folders) -> Path:
    return synthetic.ensure()


@pytest.fixture(scope="session")
def reference() -> Path:
    """The reference recordings and annotations beside the project."""
    if not (SHARED / "restore.py").is_file():
        pytest.skip("no reference recordings beside the project: this check needs real data")
    return SHARED


@pytest.fixture(scope="session")
def real_root(reference, tmp_path_factory) -> Path:
    """Folder with the reference part of ICBHI and SPRSound, in the owners' layouts; restored once for all processes."""
    home = tmp_path_factory.getbasetemp()
    home = home.parent if "PYTEST_XDIST_WORKER" in os.environ else home
    root, part = home / "real", home / "real.part"
    with FileLock(home / "real.lock"):
        if not root.is_dir():
            subprocess.run([sys.executable, str(reference / "restore.py"), str(part)], check=True, capture_output=True)
            part.rename(root)
    return root
