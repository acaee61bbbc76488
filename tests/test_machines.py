"""Machines and habits that people have: other settings, other folders, left-over variables, damaged files."""

import errno
import fcntl
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import packaging.requirements
import papermill
import pytest

from qlung import cache, load_corpus, paths
from qlung.book import cli, engine, notebooks, results
from qlung.corpora import synthetic, verify
from qlung.errors import ConfigError, QlungError, TrainingError
from qlung.training import Config, fit, runs


def write_notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell('profile: str = "demo"', metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA), path)
    return path


def outputs(path) -> str:
    return "".join(str(cell.outputs) for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")


def test_a_notebook_runs_without_the_users_settings(tmp_path, monkeypatch, capfd):
    """A backend that draws nothing, LaTeX in every figure, a start-up file, and another kernel named python3."""
    home = tmp_path / "home"
    for folder in (home / "mpl", home / "ipython" / "profile_default" / "startup", home / "jp" / "kernels" / "python3"):
        folder.mkdir(parents=True)
    (home / "mpl" / "matplotlibrc").write_text("text.usetex: True\n", encoding="utf-8")
    (home / "ipython" / "profile_default" / "startup" / "00.py").write_text("leaked = 1", encoding="utf-8")
    spec = {"argv": ["false"], "display_name": "another", "language": "python"}
    (home / "jp" / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("MATPLOTLIBRC", str(home / "mpl" / "matplotlibrc"))
    monkeypatch.setenv("IPYTHONDIR", str(home / "ipython"))
    monkeypatch.setenv("JUPYTER_PATH", str(home / "jp"))
    monkeypatch.setenv("LC_ALL", "C")
    draw = "import matplotlib.pyplot as plt\nplt.plot([0, 1]); plt.title('x')\nplt.show()"
    asked = "import sys\nprint('leaked' in globals(), sys.executable, open.__call__ and sys.flags.utf8_mode)"
    notebook = write_notebook(tmp_path / "one.ipynb", draw, asked)
    done = outputs(notebooks.run_notebook(notebook, tmp_path / "out.ipynb", {"profile": "demo"}))
    assert "plain text" not in capfd.readouterr().err  # what ipykernel says where nothing is encrypted
    assert "image/png" in done
    assert f"False {sys.executable} 1" in done


def test_a_dead_kernel_is_answered_in_one_sentence(tmp_path):
    notebook = write_notebook(tmp_path / "one.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(QlungError, match=r"one\.ipynb: its kernel died, often because memory ran out"):
        notebooks.run_notebook(notebook, tmp_path / "out.ipynb", {"profile": "demo"})


def test_a_readers_own_notebook_is_no_part_of_the_book(tmp_path, monkeypatch):
    for name in ("04_train", "04_train-Copy1", "09_mine", "Untitled"):
        write_notebook(tmp_path / f"{name}.ipynb")
    for name in ("04_train", "04_train-Copy1"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    assert [path.name for path in notebooks.book()] == ["04_train.ipynb"]


@pytest.mark.parametrize(
    ("given", "gpus", "seen"),
    [
        ("2,3", 2, ["2", "3", "2"]),
        ("GPU-aaaa,MIG-bbbb", 2, ["GPU-aaaa", "MIG-bbbb", "GPU-aaaa"]),
        ("", 2, ["0", "1", "0"]),
    ],
)
def test_workers_take_the_gpus_that_were_given(given, gpus, seen, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    plugin, found = engine.OneGPU(gpus), []
    for number in range(3):
        plugin.setup(type("Worker", (), {"name": number}))
        found.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert found == seen


def test_a_number_of_jobs_below_zero_is_refused():
    with pytest.raises(ConfigError, match="jobs=-1: give the number of processes"), engine.connect(2, jobs=-1):
        pass


def test_a_left_over_world_size_is_named(synthetic_root, tmp_path, monkeypatch):
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is set without MASTER_ADDR: unset it"):
        fit(Config(epochs=1), load_corpus("synthetic").select("train"))


def test_cores_are_those_that_may_be_used(monkeypatch):
    code = "import os; os.sched_setaffinity(0, {0}); from qlung import paths; print(paths.cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert paths.cores() == 1


def test_relative_places_lie_in_the_repository(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QLUNG_RUNS", "out")
    assert paths.runs_dir("demo") == paths.ROOT / "out" / "demo"
    monkeypatch.setenv("QLUNG_CACHE", str(tmp_path))
    monkeypatch.delenv("HOME")
    assert paths.cache_dir() == tmp_path


def test_no_home_directory_is_answered():
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME", "QLUNG_CACHE")}
    code = """if True:
        import sys
        from pathlib import Path
        from qlung.book.cli import main
        def home(cls):
            raise RuntimeError("Could not determine home directory.")
        Path.home = classmethod(home)
        sys.argv = ["qlung", "data", "status"]
        main()
    """
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no home directory for the cache: set QLUNG_CACHE" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_locale_without_the_signs_loses_only_them():
    env = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    code = "from qlung.book.cli import main\nimport sys; sys.argv = ['qlung', 'check', '--committed']\nmain()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "QLung" in done.stdout


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: (run / "predictions.parquet").write_bytes(b"PAR1"),
        lambda run: (run / "predictions.parquet").unlink(),
        lambda run: (run / "history.csv").write_bytes(b""),
        lambda run: (run / "run.json").write_bytes(b""),
        lambda run: (run / "run.json").write_text('{"config"', encoding="utf-8"),
    ],
)
def test_a_damaged_finished_run_is_named(damage, synthetic_root, tmp_path, monkeypatch):
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path))
    corpus, config = load_corpus("synthetic"), Config(epochs=1, batch_size=64)
    train, tests = corpus.select("train"), {"test": corpus.select("test")}
    folder = runs.run_folder("demo", config, train, tests)
    if not runs.is_finished(folder):
        fit(config, train, tests)
    damage(folder)
    with pytest.raises(TrainingError, match=r"a finished run is damaged: .* Delete the folder to train it again"):
        fit(config, train, tests).predictions()


def test_a_commit_is_recorded_only_if_it_is_ours(tmp_path, monkeypatch):
    assert runs.provenance()["commit"] != "unknown"
    inside = tmp_path / "outer" / "companion"
    inside.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(inside.parent)], check=True)
    monkeypatch.setattr(paths, "ROOT", inside)
    record = runs.provenance()
    assert (record["commit"], record["dirty"]) == ("unknown", None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('better = "qlung"', 'bettter = "qlung"', r"(?s)table claims: .*bettter.*not permitted"),
        ('better = "qlung"', 'better = "qlugn"', "C1: unknown 'qlugn': choose from .*did you mean 'qlung'"),
        ('corpus = "icbhi"', 'corpus = "icbih"', "C1: unknown 'icbih': choose from .*did you mean 'icbhi'"),
        ('judged_on = ["paper"]', 'judged_on = "disco sc"', "(?s)table claims: .*judged_on.*valid list"),
        ('id = "C1"', 'id = "C1', "table claims"),
    ],
)
def test_mistakes_in_the_claims_are_named(old, new, message, tmp_path, monkeypatch):
    text = paths.CLAIMS.read_text(encoding="utf-8")
    monkeypatch.setattr(paths, "CLAIMS", tmp_path / "claims.toml")
    paths.CLAIMS.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        results.verdicts("sc", results.headline())


def stub(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path):
    """The Makefile and what set-up reads; a Python whose environments are stubs that print what they are given."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(paths.ROOT / name, tmp_path)
    shown = 'echo "$0 given: $* [$PIP_USER$PIP_TARGET$PYTHONPATH]"'
    make_venv = f"""
    case "$1" in -m) mkdir -p .venv/bin; for name in python qlung; do
      printf '#!/bin/sh\\n%s\\n' '{shown}' > .venv/bin/$name; chmod +x .venv/bin/$name; done;; esac"""
    for version in ("3.11", "3.12", "3.13"):
        stub(tmp_path / "bin" / f"python{version}", make_venv + f'\ncase "$1" in -V) echo Python {version};; esac')
    return tmp_path


def make(checkout, *words, **env):
    typed = {"MAKEFLAGS", "PYTHON", "TORCH", "PROFILE", "DATA"}  # of the make that runs the tests, perhaps
    env = {name: value for name, value in os.environ.items() if name not in typed} | env
    env["PATH"] = f"{checkout / 'bin'}:{env['PATH']}"
    return subprocess.run(["make", *words], cwd=checkout, env=env, capture_output=True, text=True)


def test_set_up_leaves_the_users_settings_of_pip_and_python_out(checkout):
    done = make(checkout, "setup", "TORCH=cuda", PIP_USER="1", PIP_TARGET="/elsewhere", PYTHONPATH="/modules")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[]") == 2  # two calls of pip


@pytest.mark.parametrize("data", ['/data/$HOME "x"', "/data/it's [1] é", "/data/$(echo no)", ""])
def test_a_data_folder_arrives_as_it_was_typed(data, checkout):
    done = make(checkout, "reproduce", f"DATA={data}")
    assert f"qlung given: reproduce --profile demo --data {data} []" in done.stdout


def test_an_environment_of_another_folder_is_noticed(checkout):
    make(checkout, "setup")
    moved = checkout.with_name("moved")
    checkout.rename(moved)
    done = make(moved, "reproduce")
    assert done.returncode != 0
    assert f"This .venv was made in '{checkout}', and would run the code there: rm -rf .venv" in done.stdout
    assert "given: reproduce" not in done.stdout


@pytest.mark.parametrize("machine", ["Darwin x86_64", "Linux ppc64le", "MINGW64_NT-10.0 x86_64"])
def test_another_machine_is_told_at_once(machine, checkout):
    system, processor = machine.split()
    stub(checkout / "bin" / "uname", f'case "$1" in -s) echo {system};; *) echo {processor};; esac')
    done = make(checkout, "setup")
    assert done.returncode != 0
    assert f"runs on Linux (x86-64 or ARM) and macOS (ARM), this is {system} on {processor}" in done.stdout
    assert not (checkout / ".venv").exists()
    windows = make(checkout, "reproduce", OS="Windows_NT")
    assert "Windows is not supported: use WSL 2" in windows.stderr


@pytest.mark.parametrize("missing", [[], ["3.11"], ["3.11", "3.12"]])
def test_set_up_takes_the_first_python_that_runs(missing, checkout):
    for version in missing:
        stub(checkout / "bin" / f"python{version}", "exit 127")  # as a version manager's placeholder does
    done = make(checkout, "setup", TORCH="cuda")
    assert done.returncode == 0, done.stderr
    assert f"python3.1{len(missing) + 1} -m venv .venv" in done.stdout


def test_another_version_of_python_is_told_at_once(checkout):
    stub(checkout / "bin" / "python3", f'exec {sys.executable} "$@"')
    shown = make(checkout, "setup", "PYTHON=python3.10")
    assert "needs Python 3.11, 3.12 or 3.13: 'python3.10' is missing or another version" in shown.stdout
    make(checkout, "setup")
    stub(checkout / ".venv" / "bin" / "python", "echo Python 3.11")
    other = make(checkout, "setup", "PYTHON=python3.12")
    assert "This .venv has Python 3.11, not python3.12: rm -rf .venv" in other.stdout


@pytest.mark.parametrize(("system", "processor"), [("Linux", "aarch64"), ("Darwin", "arm64")])
def test_cuda_libraries_are_installed_where_there_is_a_gpu(system, processor, checkout):
    stub(checkout / "bin" / "uname", f'case "$1" in -s) echo {system};; *) echo {processor};; esac')
    done = make(checkout, "setup", "TORCH=cpu")
    assert done.returncode == 0, done.stdout
    wanted = (checkout / ".venv" / "wanted").read_text(encoding="utf-8")
    assert "\ntorch==" in wanted
    if system == "Darwin":  # its torch has no such libraries, and the markers of the lock leave them out
        assert "--index-url" not in done.stdout
    else:
        assert re.search(r"--index-url \S+/whl/cpu torch==[\d.]+\+cpu torchaudio==[\d.]+\+cpu", done.stdout)
        assert not re.search(r"(?m)^(nvidia|cuda|triton)", wanted)
    other = make(checkout, "setup", "TORCH=cuda")
    assert "This .venv was made with TORCH=cpu: rm -rf .venv" in other.stdout
    shutil.rmtree(checkout / ".venv")
    assert "TORCH=gpu: choose cpu or cuda" in make(checkout, "setup", "TORCH=gpu").stdout


def test_without_a_cpu_build_of_torch_set_up_goes_on(checkout):
    python = checkout / "bin" / "python3.11"
    refuses = """case "$*" in *index-url*) exit 1;; esac; echo "$0"""
    stub(python, python.read_text(encoding="utf-8").replace('echo "$0', refuses))
    done = make(checkout, "setup", "TORCH=cpu")
    assert done.returncode == 0, done.stderr
    assert "No CPU build of torch at https://download.pytorch.org/whl/cpu: taking the CUDA build" in done.stdout
    assert (checkout / ".venv" / "wanted").read_bytes() == (checkout / "requirements.lock").read_bytes()


def test_the_lock_is_for_every_supported_machine():
    """One version per package and machine, and CUDA's libraries on Linux only."""
    requirements = [
        packaging.requirements.Requirement(line)
        for line in (paths.ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    for python, system, processor in itertools.product(
        ("3.11.2", "3.11.9", "3.12.1", "3.13.0"), ("linux", "darwin"), ("x86_64", "aarch64", "arm64")
    ):
        machine = {
            "python_full_version": python, "python_version": python[:4], "sys_platform": system,
            "platform_machine": processor, "implementation_name": "cpython",
        }  # fmt: skip
        found = [one.name for one in requirements if not one.marker or one.marker.evaluate(machine)]
        assert len(found) == len(set(found))
        assert {"torch", "numpy", "jupyterlab", "pytest", "soupsieve"} <= set(found)
        assert any(name.startswith(("nvidia", "triton")) for name in found) == (system == "linux")


def test_pip_can_read_what_conda_gives_it(tmp_path):
    """conda hands the rows under "pip:" to pip as a file of requirements."""
    text = (paths.ROOT / "environment.yml").read_text(encoding="utf-8")
    rows = [line.strip().removeprefix("- ") for line in text.partition("- pip:")[2].splitlines() if line.strip()]
    assert rows == ["-r requirements.lock", "-e ."]
    (tmp_path / "condaenv.txt").write_text(
        f"-r {paths.ROOT / 'requirements.lock'}\n-e {paths.ROOT}\n", encoding="utf-8"
    )
    words = ["install", "--dry-run", "--no-index", "--no-build-isolation", "-r", str(tmp_path / "condaenv.txt")]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Would install" in done.stdout or "already satisfied" in done.stdout


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "qlung", "--help"], capture_output=True, text=True)
    assert "reproduce" in done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with this package installed in it, from a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(paths.ROOT / "qlung", folder / "source" / "qlung")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(paths.ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(folder / "source")], check=True)
    return folder / "site"


def run_installed(installed, cwd, code):
    env = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True)


def test_an_installed_wheel_is_a_library(installed, tmp_path):
    loop = (paths.ROOT / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    code = loop + "\nimport qlung\nprint(qlung.__file__, qlung.paths.ROOT, len(predicted))"
    done = run_installed(installed, tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{installed / 'qlung' / '__init__.py'} {tmp_path} 16\n"


@pytest.mark.parametrize("command", ["reproduce", "data status"])
def test_commands_of_an_installed_wheel_name_the_checkout(command, installed, tmp_path):
    code = f"import sys; from qlung.book.cli import main; sys.argv = 'qlung {command}'.split(); main()"
    done = run_installed(installed, tmp_path, code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("QlungError: run this from a checkout")
    assert done.stderr.count("\n") == 1


FULL = Path("/dev/full")  # where every write finds the disk full


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `qlung ...` in this process: (exit status, what it says of errors)."""

    def run(words):
        monkeypatch.setattr(sys, "argv", ["qlung", *words.split()])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr().err

    return run


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full: a full disk cannot be imitated here")
def test_a_full_disk_is_named_for_what_it_is(command, tmp_path, monkeypatch):
    for name in ("QLUNG_CACHE", "QLUNG_RUNS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(synthetic, "write", lambda folder: synthetic._write_wav(FULL, np.zeros(400), 4000))
    code, answer = command("train")
    assert code == 2
    assert re.fullmatch(r"cannot use '\S+QLUNG_CACHE/synthetic\S+': No space left on device. QLUNG_CACHE, .*\n", answer)
    monkeypatch.setattr(cache, "_write", lambda *_: FULL.write_bytes(b"x" * 10**6))
    with pytest.raises(cache.CacheError, match=r"cannot write '\S+QLUNG_CACHE\S+': No space left on device; free some"):
        cache.cached_array("kind", {}, list, rows=0)
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: FULL.write_bytes(b"x" * 10**6))
    with pytest.raises(OSError, match=r"No space left on device: '\S+04_train\.failed\.ipynb'"):
        notebooks.run_notebook(paths.NOTEBOOKS / "04_train.ipynb", tmp_path / "04_train.ipynb", {"profile": "demo"})


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"No locks available: '\S+/a/lock'"), paths.lock(tmp_path / "a" / "lock"):
        pass
    named = r"cannot write the run to '\S+': No locks available\. .*set QLUNG_RUNS"
    with pytest.raises(TrainingError, match=named), runs.run_lock(tmp_path / "run"):
        pass


def test_the_second_reproduce_at_once_says_so(command, synthetic_root, tmp_path, monkeypatch):
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path))
    with paths.lock(tmp_path / "demo" / "notebooks" / ".lock"):
        code, answer = command("reproduce")
    assert (code, answer) == (
        2, f"QlungError: another process works on '{tmp_path}/demo/notebooks': wait for it, or stop it\n"
    )  # fmt: skip


def test_ctrl_c_leaves_a_sentence(command, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "examine_all", stop)
    code, answer = command("data status")
    assert code == 130
    assert answer == "stopped. What is finished stays; the same command goes on from there.\n"


def test_a_zip_of_the_repository_needs_no_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert (runs.provenance()["commit"], runs.provenance()["dirty"]) == ("unknown", None)


def test_an_unknown_command_is_an_error(command):
    code, answer = command("notebooks 99_nope")
    assert code == 2
    assert "No such command 'notebooks'" in answer


def test_windows_is_answered_at_the_first_command(command, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert "Windows is not supported: use WSL 2" in command("data status")[1]
