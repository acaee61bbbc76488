"""Interruption, repeats, checkpoint rules and bad ends of a run, on a few synthetic clips."""

import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from qlung import load_corpus, training
from qlung.audio import frontends
from qlung.errors import ConfigError, TrainingError
from qlung.evaluation import icbhi_score
from qlung.training import Config, loop, runs

QUICK = Config(epochs=3, batch_size=8, lr=1e-3)


def few(corpus, clips: int):
    """The first clips of every class."""
    events = corpus.events.groupby("label", sort=False).head(clips).sort_index().reset_index(drop=True)
    return dataclasses.replace(corpus, events=events)


@pytest.fixture(scope="session")
def corpora(synthetic_root):
    corpus = load_corpus("icbhi", synthetic_root)
    return few(corpus.select("train"), 10), {"test": few(corpus.select("test"), 6)}


@pytest.fixture
def train(corpora, tmp_path, monkeypatch):
    """fit with a fresh folder of runs for each name."""

    def run(config=QUICK, into="runs", **given):
        monkeypatch.setenv("QLUNG_RUNS", str(tmp_path / into))
        return training.fit(config, *corpora, **given)

    return run


def weights(run) -> bytes:
    return (run.folder / "model.safetensors").read_bytes()


def stop_after(epoch: int):
    """A ``progress`` that interrupts the run right after an epoch's checkpoint."""

    def progress(now, line):
        if now == epoch:
            raise KeyboardInterrupt

    return progress


LONG = dataclasses.replace(QUICK, epochs=8)


def train_under_fire(root: str) -> None:
    """Fork a run and kill it at a random moment (every other time after an epoch), until one ends by itself."""
    corpus, chance, killed = load_corpus("icbhi", root), random.Random(0), 0
    corpora = few(corpus.select("train"), 10), {"test": few(corpus.select("test"), 6)}
    while True:
        reader, writer = os.pipe()
        if not (child := os.fork()):
            training.fit(LONG, *corpora, progress=lambda epoch, line, to=writer: os.write(to, b"."))
            os._exit(0)
        os.close(writer)
        if killed % 2:
            os.read(reader, 1)
        time.sleep(chance.uniform(0, 0.1 if killed % 2 else 0.4))
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        killed += 1
    print(killed)


def test_killed_at_random_moments_gives_the_same_weights(train, synthetic_root, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the forked runs: sums depend on how many threads share them
    whole = train(LONG, "whole")
    torch.set_num_threads(threads)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_training as t\n"
    job = [sys.executable, "-c", code + f"t.train_under_fire({str(synthetic_root)!r})"]
    settings = {"OMP_NUM_THREADS": "1", "QLUNG_RUNS": str(tmp_path / "killed")}
    done = subprocess.run(job, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    (model,) = tmp_path.glob("killed/demo/*/*/model.safetensors")
    assert model.read_bytes() == weights(whole)
    assert pd.read_csv(model.parent / "history.csv").equals(whole.history)
    assert sorted(p.name for p in model.parent.iterdir()) == sorted(p.name for p in whole.folder.iterdir())


@pytest.mark.parametrize("damage", ["nothing", "newest cut", "newest empty", "both cut"])
def test_resume_goes_back_to_a_sound_checkpoint(damage, train, tmp_path):
    whole = train(into="whole")
    with pytest.raises(KeyboardInterrupt):
        train(progress=stop_after(2))
    newest, previous = (next(tmp_path.glob(f"runs/demo/*/*/{name}")) for name in runs.CHECKPOINTS)
    if damage == "newest empty":
        newest.write_bytes(b"")
    elif damage != "nothing":
        for path in (newest, previous)[: 2 if damage == "both cut" else 1]:
            path.write_bytes(path.read_bytes()[:-100])
    said = []
    again = train(progress=lambda epoch, line: said.append(line))
    first = {"nothing": 3, "both cut": 1}.get(damage, 2)
    assert f"epoch {first}/3" in next(line for line in said if " epoch " in line)
    assert sum("is damaged" in line for line in said) == {"nothing": 0, "both cut": 2}.get(damage, 1)
    assert weights(again) == weights(whole)


def test_repeats_are_bit_identical(train):
    first, *repeats = (train(into=f"repeat {n}") for n in range(3))
    for repeat in repeats:
        assert weights(repeat) == weights(first)
        pd.testing.assert_frame_equal(repeat.history, first.history, check_exact=True)
        pd.testing.assert_frame_equal(repeat.predictions(), first.predictions(), check_exact=True)
    assert weights(train(dataclasses.replace(QUICK, seed=1), "other seed")) != weights(first)


def test_history_tells_the_parts_of_the_loss(train):
    history = train().history
    assert (history["loss"] > history["loss_cls"]).all()
    assert history["margin_rad"].between(0.05, 0.6).all()
    angles = history[["theta_normal", "theta_crackle", "theta_wheeze", "theta_both"]]
    np.testing.assert_allclose(angles.mean(axis=1), history["theta_deg"], atol=1e-3)  # ten clips of each class
    assert history["lr"].is_monotonic_decreasing
    assert history["lr"].iloc[-1] == pytest.approx(QUICK.lr / 1000)


def test_validation_patients_are_held_out_and_choose_the_epoch(train, corpora, monkeypatch):
    judged = []
    monkeypatch.setattr(loop, "icbhi_score", lambda y, p: judged.append(y) or icbhi_score(y, p))
    run = train(dataclasses.replace(QUICK, checkpoint="val"))
    record = json.loads((run.folder / "run.json").read_text())
    assert sum(record["train_counts"]) + len(judged[0]) == len(corpora[0].events)
    assert run.history["score"].idxmax() + 1 == record["chosen"]["epoch"]
    job = training.Trainer(run.config, *corpora, torch.device("cpu"))
    patients = corpora[0].events["recording_id"].map(corpora[0].recordings.set_index("recording_id")["patient_id"])
    inside = patients.isin(patients[job.rows.numpy()])
    assert inside.sum() == len(job.rows) < len(patients)
    with pytest.raises(KeyboardInterrupt):
        train(run.config, "stopped", progress=stop_after(2))
    assert weights(train(run.config, "stopped")) == weights(run)


def test_best_on_test_is_never_an_accident(train, corpora):
    said = []
    config = dataclasses.replace(QUICK, checkpoint="best_on_test")
    run = train(config, progress=lambda epoch, line: said.append(line))
    assert "chosen by the TEST labels" in said[0]
    table = run.predictions()
    assert icbhi_score(table["label"], table["predicted"]).score == pytest.approx(run.history["score"].max())
    with pytest.raises(ConfigError, match="needs a test corpus"):
        training.fit(config, corpora[0])
    assert Config().checkpoint == "last"


class Flat(nn.Module):
    """An encoder without batch statistics or dropout, for checks of the arithmetic."""

    front_end, dim, weights = frontends.FrontEnd("ast", 16000), 32, "random"

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(128, 32)

    def forward(self, x):
        return torch.relu(self.layer(x)).mean(1)


@pytest.fixture
def flat(monkeypatch):
    monkeypatch.setattr(training.Model.__init__.__globals__["backbones"], "build_backbone", lambda *given: Flat())


@pytest.mark.parametrize("method", ["qlung", "ce_weighted"])
def test_accumulation_changes_memory_and_nothing_else(method, flat, train):
    config = dataclasses.replace(QUICK, method=method, batch_size=12)  # the last batch has 4 clips
    whole, split = train(config), train(dataclasses.replace(config, accumulate=5))
    for name, value in load_file(whole.folder / "model.safetensors").items():
        torch.testing.assert_close(load_file(split.folder / "model.safetensors")[name], value, atol=1e-5, rtol=1e-4)
    shown = ["loss", "loss_cls", "theta_deg", "theta_both", "grad_norm"]
    np.testing.assert_allclose(split.history[shown], whole.history[shown], rtol=1e-4)


def test_a_row_of_table_3_is_its_margin_and_its_head(flat, train):
    """+ class margin with the angular classifier is QLung, and QLung with the linear one is + class margin."""
    histories = {
        (method, head): train(dataclasses.replace(QUICK, method=method, head=head)).history
        for method, head in [("class", ""), ("class", "angular"), ("qlung", ""), ("qlung", "linear")]
    }
    assert histories["class", "angular"].equals(histories["qlung", ""])
    assert histories["qlung", "linear"].equals(histories["class", ""])
    assert not histories["class", ""].equals(histories["qlung", ""])


def test_ma_update_halves_every_step(flat, corpora):
    """The family's way, written out: after a step, weights are averaged with those before it."""

    def one(ma_update, average):
        job = training.Trainer(dataclasses.replace(QUICK, ma_update=ma_update), *corpora, torch.device("cpu"))
        for _ in range(3):
            before = [p.detach().clone() for p in job.model.parameters()]
            job.optimiser.zero_grad()
            outputs = job.model(torch.from_numpy(job.x[:8].astype(np.float32)))
            job.objective(*outputs, job.target[:8], job.aqs[:8])[0].backward()
            job.optimiser.step()
            with torch.no_grad():
                for now, then in zip(job.model.parameters(), before, strict=True):
                    now.lerp_(then, average)
        return job.model.classifier.prototypes

    torch.testing.assert_close(one(0.5, 0.0), one(0.0, 0.5), atol=1e-6, rtol=1e-5)


def test_bfloat16_trains_and_says_so(train):
    run = train(dataclasses.replace(QUICK, precision="bf16"))
    assert json.loads((run.folder / "run.json").read_text())["config"]["precision"] == "bf16"
    assert run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]
    assert all(value.dtype != torch.bfloat16 for value in load_file(run.folder / "model.safetensors").values())
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="'fp16' needs a GPU"):
            train(dataclasses.replace(QUICK, precision="fp16"))


@pytest.mark.parametrize("method", ["ce", "qlung"])
def test_heads_compute_in_float32_inside_autocast(method, flat, corpora):
    job = training.Trainer(dataclasses.replace(QUICK, method=method), *corpora, torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        logits, cosine, norm = job.model(torch.from_numpy(job.x[:4].astype(np.float32)))
    assert logits.dtype == cosine.dtype == norm.dtype == torch.float32
    assert len(cosine.unique()) == cosine.numel()
    assert not torch.equal(cosine, cosine.bfloat16().float())


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"checkpoint": "best"}, "unknown checkpoint 'best': choose from last, val, best_on_test"),
     ({"precision": "half"}, "unknown precision"), ({"accumulate": 0}, "must be positive"),
     ({"ma_update": 1.0}, "ma_update"), ({"lr": float("nan")}, "must be positive"),
     ({"head": "cosine"}, "unknown head"), ({"head": "linear", "method": "arcface"}, "'arcface' has its own head")],
)  # fmt: skip
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        Config(**setting)


@pytest.fixture
def earlier(train):
    """A finished run, and a check that nothing of it changed."""
    run = train(dataclasses.replace(QUICK, seed=9, epochs=1))
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    yield run
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


def test_a_nan_stops_the_run_at_once(train, earlier, monkeypatch):
    steps, forward = [], loop.Objective.forward

    def poisoned(self, *given):
        steps.append(1)
        loss, *rest = forward(self, *given)
        return (loss * float("nan") if len(steps) == 7 else loss, *rest)

    monkeypatch.setattr(loop.Objective, "forward", poisoned)
    with pytest.raises(TrainingError, match=r"diverged in epoch 2, step 2: loss nan.*Lower lr \(0.001\)"):
        train()
    monkeypatch.setattr(loop.Objective, "forward", forward)
    assert weights(train()) == weights(train(into="whole"))  # on from epoch 1, with sound weights


def test_an_exploding_rate_is_stopped_early(train):
    with pytest.raises(TrainingError, match="diverged in epoch 1, step"):
        train(dataclasses.replace(QUICK, method="ce", lr=1e6))


def test_a_full_disk_is_answered_and_survived(train, earlier, monkeypatch):
    save_file, room = runs.safetensors.torch.save_file, [1]

    def full(tensors, path, *given):
        if not room:
            Path(path).write_bytes(b"as far as it went")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room.pop()
        save_file(tensors, path, *given)

    monkeypatch.setattr(runs.safetensors.torch, "save_file", full)
    with pytest.raises(TrainingError, match=r"cannot write the run to .*: No space left on device.*QLUNG_RUNS"):
        train()
    monkeypatch.setattr(runs.safetensors.torch, "save_file", save_file)
    said = []
    run = train(progress=lambda epoch, line: said.append(epoch))
    assert said == [2, 3]
    assert weights(run) == weights(train(into="whole"))


def test_an_unwritable_folder_is_named(train, tmp_path):
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(TrainingError, match=r"cannot write the run to .*taken.*QLUNG_RUNS"):
        train(into="taken")


def test_a_checkpoint_with_other_classes_is_refused(train, earlier, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(progress=stop_after(1))
    path = next(tmp_path.glob(f"runs/demo/*/*/{runs.CHECKPOINTS[0]}"))
    with runs.safetensors.safe_open(path, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata()
    tensors["model.classifier.prototypes"] = torch.zeros(5, 64)
    save_file(tensors, path, metadata)
    with pytest.raises(TrainingError, match=r"is of another model: (.|\n)*prototypes(.|\n)*Delete that file"):
        train()


def test_two_processes_do_not_train_the_same_run(train, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(progress=stop_after(1))
    (folder,) = tmp_path.glob("runs/demo/*/*/")
    imports = "from pathlib import Path; from qlung.training import runs"
    held = f"{imports}\nwith runs.run_lock(Path({str(folder)!r})): print('held')"
    with runs.run_lock(folder):
        job = subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(timeout=0.5)
    assert job.communicate()[0] == "held\n"
