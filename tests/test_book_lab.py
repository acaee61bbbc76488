"""JupyterLab as `make lab` starts it: opening and saving a notebook changes only what the reader typed."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
import requests

from qlung import paths

COPIED = ("notebooks", "qlung", "tools", ".jupyter", "pyproject.toml", "README.md", "figures/sc/05-steps.csv")
IN_LAB = {  # what JupyterLab knows of a running kernel, and writes
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"codemirror_mode": {"name": "ipython", "version": 3}, "file_extension": ".py", "name": "python",
                      "mimetype": "text/x-python", "nbconvert_exporter": "python", "pygments_lexer": "ipython3",
                      "version": "3.11.99"},
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project, so that a notebook that is saved wrongly spoils nothing."""
    home = tmp_path_factory.mktemp("lab") / "project"
    ignored = shutil.ignore_patterns("mine", "__pycache__", ".ipynb_checkpoints")
    for name in COPIED:
        source, target = paths.ROOT / name, home / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    return home


@pytest.fixture(scope="module")
def server(project):
    """Address of the contents of a real server with the configuration of `make lab`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--config=.jupyter/jupyter_lab_config.py", "--allow-root", "--no-browser", f"--port={port}",
             "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True",
             "--ServerApp.port_retries=0"]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(project)}
    with open(project.parent / "log", "w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "jupyterlab", *flags]
        job = subprocess.Popen(command, cwd=project, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            assert job.poll() is None, (project.parent / "log").read_text(encoding="utf-8")
            try:
                requests.get(f"{address}/api/status", timeout=60).raise_for_status()
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield f"{address}/api/contents"
    finally:
        job.terminate()
        job.wait()


def tracked(project) -> dict[str, bytes]:
    """Content of every notebook and source that git tracks."""
    found = [path for path in project.glob("notebooks/**/*.*") if path.suffix in (".ipynb", ".py")]
    hidden = {"mine", ".ipynb_checkpoints"}
    return {path.name: path.read_bytes() for path in found if not hidden & set(path.parts)}


def save(server: str, name: str, change=lambda book: None) -> None:
    """Open a notebook, change it, and save it as JupyterLab does after running it."""
    book = requests.get(f"{server}/{name}", timeout=60).json()["content"]
    book["metadata"] |= IN_LAB
    for cell in book["cells"]:
        cell["metadata"] = {"trusted": True, "editable": True} | cell["metadata"]
        outputs = cell.get("outputs", [])
        if [output["output_type"] for output in outputs] == ["stream"]:  # a slow kernel's prints come one by one
            lines = "".join(outputs[0]["text"]).splitlines(keepends=True)
            cell["outputs"] = [outputs[0] | {"text": line} for line in lines]
    change(book)
    answer = requests.put(f"{server}/{name}", json={"type": "notebook", "format": "json", "content": book}, timeout=60)
    assert answer.ok, answer.text


def test_saving_what_was_opened_and_run_changes_nothing(project, server):
    before = tracked(project)
    names = [path.relative_to(project).as_posix() for path in sorted(project.glob("notebooks/[0-9]*.ipynb"))]
    for name in [*names, "notebooks/exercises/03_exercises.ipynb"]:
        save(server, name)
    assert tracked(project) == before
    assert len(names) == 10


def test_what_was_typed_is_saved_in_both_files_and_nothing_else(project, server):
    before, typed = tracked(project), "print('typed by a reader')"
    save(server, "notebooks/00_start_here.ipynb", lambda book: book["cells"][-1].update(source=typed))
    after = tracked(project)
    assert {name for name in before if before[name] != after[name]} == {"00_start_here.ipynb", "00_start_here.py"}
    old, new = (set(files["00_start_here.py"].decode().splitlines()) for files in (before, after))
    assert "typed by a reader" in "".join(new - old)
    assert len(new - old) == 1
    cells = [json.loads(files["00_start_here.ipynb"])["cells"] for files in (before, after)]
    assert cells[0][:-1] == cells[1][:-1]


def test_the_browser_shows_the_project_without_paired_sources(server):
    names = [entry["name"] for entry in requests.get(server, timeout=60).json()["content"]]
    assert {"README.md", "notebooks", "qlung", "figures"} <= set(names)
    shown = [entry["name"] for entry in requests.get(f"{server}/notebooks", timeout=60).json()["content"]]
    assert "00_start_here.ipynb" in shown
    assert not [name for name in shown if name.endswith(".py")]


def test_answers_live_in_a_copy_that_nothing_overwrites(project, server):
    own, before = "notebooks/exercises/mine/03_exercises.ipynb", tracked(project)
    save(server, own, lambda book: book["cells"][2].update(source="answer = 42"))
    assert "answer = 42" in (project / own).read_text(encoding="utf-8")
    assert not (project / own).with_suffix(".py").exists()
    links = re.findall(r"\]\(([^)#]+)", (project / own).read_text(encoding="utf-8"))
    assert links
    assert all((project / own).parent.joinpath(link).is_file() for link in links)
    again = """if True:
        import build_notebooks
        from traitlets.config.loader import PyFileConfigLoader
        build_notebooks.write_exercises()
        PyFileConfigLoader("jupyter_lab_config.py", ".jupyter").load_config()
    """
    env = os.environ | {"PYTHONPATH": f"{project}{os.pathsep}{project / 'tools'}"}
    subprocess.run([sys.executable, "-c", again], cwd=project, env=env, check=True)
    assert "answer = 42" in (project / own).read_text(encoding="utf-8")
    assert tracked(project) == before
    ignored = (paths.ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/notebooks/exercises/mine/" in ignored


def test_make_lab_passes_flags_on():
    done = subprocess.run(["make", "-n", "lab", "LAB=--allow-root --no-browser"], cwd=paths.ROOT, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert "--config=.jupyter/jupyter_lab_config.py --allow-root --no-browser" in done.stdout
