"""Interruption, repeats, checkpoint rules and bad ends of a run, on a few synthetic clips."""

import dataclasses
import errno
import json
import math
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
from safetensors.torch import load_file
from torch import nn

from qlung import load_corpus, training
from qlung.audio import frontends
from qlung.errors import ConfigError, MarginError, TrainingError
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

    run.corpora = corpora
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


def train_and_kill(root: str) -> None:
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


def test_a_run_killed_at_random_moments_gives_the_same_weights(train, synthetic_root, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the forked runs: sums depend on how many threads share them
    whole = train(LONG, "whole")
    torch.set_num_threads(threads)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_training as t\n"
    job = [sys.executable, "-c", code + f"t.train_and_kill({str(synthetic_root)!r})"]
    settings = {"OMP_NUM_THREADS": "1", "QLUNG_RUNS": str(tmp_path / "killed")}
    done = subprocess.run(job, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    (model,) = tmp_path.glob("killed/demo/*/*/model.safetensors")
    assert model.read_bytes() == weights(whole)
    assert pd.read_csv(model.parent / "history.csv").equals(whole.history)
    assert sorted(p.name for p in model.parent.iterdir()) == sorted(p.name for p in whole.folder.iterdir())


@pytest.mark.parametrize("damage", ["nothing", "newest cut", "newest empty", "newest one bit", "both cut"])
def test_resume_goes_back_to_a_sound_checkpoint(damage, train, tmp_path):
    whole = train(into="whole")
    with pytest.raises(KeyboardInterrupt):
        train(progress=stop_after(2))
    newest, previous = (next(tmp_path.glob(f"runs/demo/*/*/{name}")) for name in runs.CHECKPOINTS)
    if damage == "newest empty":
        newest.write_bytes(b"")
    elif damage == "newest one bit":
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    elif damage != "nothing":
        for path in (newest, previous)[: 2 if damage == "both cut" else 1]:
            path.write_bytes(path.read_bytes()[:-100])
    lines = []
    again = train(progress=lambda epoch, line: lines.append(line))
    first = {"nothing": 3, "both cut": 1}.get(damage, 2)
    assert f"epoch {first}/3" in next(line for line in lines if " epoch " in line)
    assert sum("is damaged" in line for line in lines) == {"nothing": 0, "both cut": 2}.get(damage, 1)
    assert weights(again) == weights(whole)


def test_repeats_are_bit_identical(train):
    first, *repeats = (train(into=f"repeat {n}") for n in range(3))
    for repeat in repeats:
        assert weights(repeat) == weights(first)
        pd.testing.assert_frame_equal(repeat.history, first.history, check_exact=True)
        pd.testing.assert_frame_equal(repeat.predictions(), first.predictions(), check_exact=True)
    assert weights(train(dataclasses.replace(QUICK, seed=1), "other seed")) != weights(first)


@pytest.mark.parametrize("backbone", ["cnn", "mn04"])
def test_the_trainer_is_the_plain_loop_that_anybody_would_write(backbone, train, corpora):
    """Cross-entropy, Adam, a cosine rate, masks: with the same random numbers, the same losses and answers."""
    config = dataclasses.replace(QUICK, epochs=2, backbone=backbone, method="ce", pretrained=False, seed=4)
    corpus, tests = corpora
    torch.manual_seed(config.seed)
    net = training.Model(config).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(config.seed)
    x, target = torch.from_numpy(np.array(net.features(corpus)[0])), torch.tensor(corpus.events["label"].to_numpy())
    optimiser = torch.optim.Adam(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    steps, losses = config.epochs * math.ceil(len(x) / config.batch_size), []
    for _ in range(config.epochs):
        net.train()
        for batch in torch.randperm(len(x), generator=generator).split(config.batch_size):
            rate = config.lr * (0.001 + 0.999 * (1 + math.cos(math.pi * len(losses) / steps)) / 2)
            optimiser.param_groups[0]["lr"] = rate
            masks = frontends.MASKS[net.encoder.front_end.recipe]
            logits, *_ = net(frontends.spec_augment(x[batch].float(), generator, masks))
            loss = nn.functional.cross_entropy(logits, target[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    run = train(config)
    by_epoch = np.mean(np.split(np.array(losses), config.epochs), axis=1)
    assert run.history["loss"].to_numpy() == pytest.approx(by_epoch, rel=1e-5)
    ours, own = run.predictions(), training.model.predict(net, tests["test"])
    assert ours[["p0", "p3"]].to_numpy() == pytest.approx(own[["p0", "p3"]].to_numpy(), abs=1e-4)


def test_history_has_the_parts_of_the_loss(train):
    history = train().history
    assert (history["loss"] > history["loss_cls"]).all()
    assert history["margin_rad"].between(0.05, 0.6).all()
    angles = history[["theta_normal", "theta_crackle", "theta_wheeze", "theta_both"]]
    np.testing.assert_allclose(angles.mean(axis=1), history["theta_deg"], atol=1e-3)  # ten clips of each class
    assert history["lr"].is_monotonic_decreasing
    assert history["lr"].iloc[-1] == pytest.approx(QUICK.lr / 1000)


def test_validation_patients_are_held_out_and_choose_the_epoch(train, corpora, monkeypatch):
    labels = []
    monkeypatch.setattr(loop, "icbhi_score", lambda y, p: labels.append(y) or icbhi_score(y, p))
    run = train(dataclasses.replace(QUICK, checkpoint="val"))
    record = json.loads((run.folder / "run.json").read_text())
    assert sum(record["train_counts"]) + len(labels[0]) == len(corpora[0].events)
    assert run.history["score"].idxmax() + 1 == record["chosen"]["epoch"]
    job = loop.Trainer(run.config, *corpora, torch.device("cpu"))
    sides = [set(part.of_events("patient_id")) for part in (job.corpus, job.validation)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(corpora[0].of_events("patient_id"))
    assert len(job.x) + len(job.validation.events) == len(corpora[0].events)
    with pytest.raises(KeyboardInterrupt):
        train(run.config, "stopped", progress=stop_after(2))
    assert weights(train(run.config, "stopped")) == weights(run)


def test_best_on_test_is_never_an_accident(train, corpora):
    lines = []
    config = dataclasses.replace(QUICK, checkpoint="best_on_test")
    run = train(config, progress=lambda epoch, line: lines.append(line))
    assert "chosen by the TEST labels" in lines[0]
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

    def forward(self, x, filled=None):
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
    """The family's method, written out: after a step, weights are averaged with those before it."""

    def one(ma_update, average):
        torch.manual_seed(0)
        job = loop.Trainer(dataclasses.replace(QUICK, ma_update=ma_update), *corpora, torch.device("cpu"))
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


def steps(corpora, **settings):
    """A run that has begun, and the change of its weights in one epoch."""
    torch.manual_seed(0)
    config = dataclasses.replace(QUICK, method="ce", augment=False, **settings)
    job = loop.Trainer(config, *corpora, torch.device("cpu"))
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    job.set_mode(1)
    for batch in job.order().split(8):
        job.optimiser.zero_grad()
        outputs = job.model(job.features(batch))
        job.objective(*outputs, job.target[batch], job.aqs[batch])[0].backward()
        job.optimiser.step()
    return job, {name: (value - before[name]).abs().max().item() for name, value in job.model.state_dict().items()}


def test_what_a_recipe_freezes_stays_as_it_was(corpora):
    _, all_learn = steps(corpora)
    assert all(all_learn.values())
    _, probing = steps(corpora, probe_epochs=1)
    assert {name for name, change in probing.items() if change} == {"bias", "classifier.prototypes"}
    _, norms = steps(corpora, batch_norm="frozen")
    still = {name for name in norms if "running" in name or "num_batches" in name}
    assert {name for name, change in norms.items() if not change} == still


def test_frozen_blocks_are_the_first_ones(corpora):
    few_clips = few(corpora[0], 2), corpora[1]
    _, change = steps(few_clips, backbone="mn04", pretrained=False, frozen_blocks=4)
    first = {name for name in change if name.startswith(tuple(f"encoder.features.{i}." for i in range(4)))}
    learnt = {name for name, size in change.items() if size}
    assert first
    assert not first & learnt
    assert {"encoder.features.4.block.0.0.weight", "classifier.prototypes"} <= learnt


def test_the_head_starts_as_large_and_learns_as_fast_as_asked(corpora):
    small, change = steps(corpora, head_init=0.1, lr=1e-3, head_lr=10.0)
    rates = [group["lr"] for group in small.optimiser.param_groups]
    assert rates == pytest.approx([1e-3, 1e-2])
    assert change["classifier.prototypes"] > 3 * change["encoder.features.0.weight"]
    starts = []
    for share in (1.0, 0.1):
        torch.manual_seed(0)
        starts.append(training.Model(dataclasses.replace(QUICK, head_init=share)).classifier.prototypes)
    torch.testing.assert_close(starts[1], 0.1 * starts[0])


def test_rates_rise_and_then_fall_along_a_cosine():
    rates = [loop.share_of_rate(step, 100, 20) for step in range(101)]
    assert rates[:20] == pytest.approx(np.arange(1, 21) / 20)
    assert rates[20] == pytest.approx(1)
    assert rates[60] == pytest.approx(0.5, abs=1e-3)
    assert rates[100] == pytest.approx(1e-3)
    assert loop.share_of_rate(0, 100) == pytest.approx(1)


def test_balanced_draws_show_every_class_and_every_device_as_often(corpora):
    label = corpora[0].events["label"].to_numpy()
    rare = dataclasses.replace(corpora[0], events=corpora[0].events[(label == 0) | (np.arange(len(label)) % 5 == 0)])
    job, _ = steps((rare, corpora[1]), balance="class")
    drawn = np.concatenate([rare.events["label"].to_numpy()[job.order()] for _ in range(200)])
    assert np.bincount(drawn) / len(drawn) == pytest.approx(0.25, abs=0.03)
    job, _ = steps((rare, corpora[1]), balance="device")
    group = rare.events["label"].astype(str) + rare.of_events("listed_device")
    drawn = pd.concat([group.iloc[job.order()] for _ in range(200)]).value_counts(normalize=True)
    assert drawn.to_numpy() == pytest.approx(1 / group.nunique(), abs=0.03)


def test_the_mean_of_the_last_epochs_is_saved_and_survives_a_resume(train, tmp_path, monkeypatch):
    config, seen, save = dataclasses.replace(QUICK, average=2), [], runs.save_checkpoint

    def noted(folder, state):
        seen.append(state["model"]["bias"].clone())
        save(folder, state)

    monkeypatch.setattr(runs, "save_checkpoint", noted)
    run = train(config)
    saved = load_file(run.folder / "model.safetensors")
    torch.testing.assert_close(saved["bias"], (seen[-2] + seen[-1]) / 2)
    with pytest.raises(KeyboardInterrupt):
        train(config, "stopped", progress=stop_after(2))
    again = train(config, "stopped")
    assert weights(again) == weights(run)


def test_crops_tilts_and_mixed_bands_do_what_they_say():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(6, 5, 80, generator=random) * torch.arange(1.0, 7)[:, None, None] + torch.arange(6.0)[:, None, None]
    windows = frontends.crop(x, random, 2, 0.5)
    assert windows.shape == (6, 5, 40)
    found = (x.unfold(2, 40, 1) == windows[:, :, None]).all(3).all(1).nonzero()[:, 1].tolist()
    assert len(found) == 6
    assert len(set(found)) > 1
    change = frontends.tilt(x, random, 1, 2.0) - x
    assert change.std(2).max() < 1e-5  # the same at every time
    assert torch.diff(change[:, :, 0], n=2).abs().max() < 1e-5  # a line over the bands
    assert 1 < change.abs().max() <= 4
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(frontends.tilt(x.mT, one, 2, 2.0).mT, frontends.tilt(x, other, 1, 2.0))
    mixed = frontends.mix_bands(x, random, 1)
    own, new = ((clip - clip.mean(2, keepdim=True)) / clip.std(2, keepdim=True) for clip in (x, mixed))
    torch.testing.assert_close(own, new, atol=1e-3, rtol=1e-3)  # what changes is each band's mean and sd, ...
    shares = (mixed.mean(2) - x.mean(2)).abs().amax(1)
    assert (shares > 0.01).sum() >= 3
    assert mixed.mean(2).min() >= x.mean(2).min() - 1e-4  # ... to something between two clips'
    assert mixed.mean(2).max() <= x.mean(2).max() + 1e-4


def test_bfloat16_trains_and_is_recorded(train):
    run = train(dataclasses.replace(QUICK, precision="bf16"))
    assert json.loads((run.folder / "run.json").read_text())["config"]["precision"] == "bf16"
    assert run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]
    assert all(value.dtype != torch.bfloat16 for value in load_file(run.folder / "model.safetensors").values())
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="'fp16' needs a GPU"):
            train(dataclasses.replace(QUICK, precision="fp16"))


@pytest.mark.parametrize("method", ["ce", "qlung"])
def test_heads_compute_in_float32_inside_autocast(method, flat, corpora):
    job = loop.Trainer(dataclasses.replace(QUICK, method=method), *corpora, torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        logits, cosine, norm = job.model(torch.from_numpy(job.x[:4].astype(np.float32)))
    assert logits.dtype == cosine.dtype == norm.dtype == torch.float32
    assert len(cosine.unique()) == cosine.numel()
    assert not torch.equal(cosine, cosine.bfloat16().float())


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"checkpoint": "best"}, "unknown checkpoint 'best': choose from last, val, best_on_test"),
     ({"method": "qlungg"}, "unknown method 'qlungg': choose from ce, .*did you mean 'qlung'?"),
     ({"backbone": "mn40"}, "unknown backbone 'mn40': .*did you mean 'mn04'"),
     ({"quality": "aks"}, "unknown quality 'aks': choose from aqs, "), ({"normalise": "ranks"}, "unknown normalise"),
     ({"precision": "half"}, "unknown precision"), ({"head": "cos"}, "unknown head 'cos': choose from '', linear"),
     ({"compile": True}, "unknown setting 'compile'"),
     ({"gama": 0.5}, "unknown setting 'gama': choose from method, .*did you mean 'gamma'?"),
     ({"augment": "false"}, r"augment should be a valid boolean, it is 'false' \(str\)"),
     ({"epochs": 2.5}, r"epochs should be a valid integer, it is 2.5 \(float\)"),
     ({"seed": True}, "seed should be a valid integer"),
     ({"lr": "1e-3"}, "lr should be a valid number"), ({"lr": float("nan")}, "lr should be a finite number, it is nan"),
     ({"lr": 0}, "lr should be greater than 0, it is 0"), ({"epochs": 0}, "epochs should be greater than or equal to"),
     ({"accumulate": 0}, "accumulate should be greater"), ({"batch_size": -8}, "batch_size should be greater"),
     ({"seed": -1}, "seed should be greater"), ({"ma_update": 1.0}, "ma_update should be less than 1, it is 1.0"),
     ({"scale_cls": 0.0}, "scale_cls should be greater"), ({"scale_margin": -1}, "scale_margin should be greater"),
     ({"weight_decay": -1e-6}, "weight_decay should be greater than or equal to 0"),
     ({"gamma": 1.2}, "gamma should be less than or equal to 1"), ({"gamma": -0.1}, "gamma should be greater"),
     ({"lam": -1}, "lam should be greater"), ({"kappa": float("inf")}, "kappa should be a finite number"),
     ({"fixed_margin": 11.5}, "fixed_margin should be less than or equal to 3.14"),
     ({"head": "linear", "method": "arcface"}, "'arcface' has its own head"),
     ({"masks": 1.5}, "masks should be less than or equal to 1"), ({"head_init": 0.0}, "head_init should be greater"),
     ({"tilt_db": 6.0, "backbone": "mn04_frozen"}, "tilt_db and band_mix go with cnn and mn04, not with mn04_frozen"),
     ({"crop_s": 4.0, "pad": "silence"}, "crop_s goes with pad='repeat'"), ({"crop_s": 9.0}, "crop_s"),
     ({"frozen_blocks": 4}, "frozen_blocks goes with mn04, not with cnn"),
     ({"probe_epochs": 3, "epochs": 3}, r"probe_epochs=3 below, .* the number of epochs \(3\)"),
     ({"average": 2, "checkpoint": "val"}, "average=2 goes with checkpoint='last'")],
)  # fmt: skip
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        Config(**setting)
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(Config(), **setting)


def test_a_configuration_is_frozen_and_a_whole_number_is_a_float():
    assert Config(lr=1) == Config(lr=1.0)
    assert isinstance(Config(lr=1).lr, float)
    assert vars(Config()) == dataclasses.asdict(Config())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1


def test_a_run_leaves_the_process_as_it_was(train, monkeypatch):
    """Threads, determinism, environment and random numbers, after a run that ends and after one that is stopped."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    train(dataclasses.replace(QUICK, epochs=1), "first")  # what accelerate sets up once per process is set up

    def process():
        environment = {name: value for name, value in os.environ.items() if name != "QLUNG_RUNS"}
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        deterministic = torch.are_deterministic_algorithms_enabled(), warn_only
        return environment, deterministic, torch.get_num_threads(), torch.get_rng_state().tolist()

    torch.manual_seed(123)
    before, inside = process(), []
    train(dataclasses.replace(QUICK, epochs=1), "second", progress=lambda epoch, line: inside.append(process()))
    assert process() == before
    assert inside[0][1] == (True, True)
    assert inside[0][0]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    with pytest.raises(KeyboardInterrupt):
        train(into="third", progress=stop_after(1))
    assert process() == before
    loop.Trainer(QUICK, *train.corpora, torch.device("cpu"))
    assert process()[:3] == before[:3]


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


def test_steps_that_fp16_skips_are_counted_and_nothing_else(train, monkeypatch):
    """The scale of fp16 starts so high that gradients overflow: such steps move neither weights nor the rate."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler(device, init_scale=2.0**127))
    steps, run = 3 * math.ceil(40 / QUICK.batch_size), train(into="skipped")
    skipped = run.history["skipped_steps"].fillna(0).sum()
    assert 0 < skipped < steps
    assert np.isfinite(run.history[["loss", "grad_norm", "grad_norm_sd"]]).all(axis=None)
    rate = (1 + math.cos(math.pi * (steps - skipped) / steps)) / 2
    assert run.history["lr"].iloc[-1] == pytest.approx(QUICK.lr * (0.001 + 0.999 * rate))
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    assert "skipped_steps" not in train().history


@pytest.mark.parametrize("method", ["ce", "qlung"])
def test_a_missing_class_is_found_before_features_are_computed(method, corpora, train, monkeypatch):
    monkeypatch.setattr(loop.Model, "features", lambda *_: pytest.fail("features are computed"))
    corpus = corpora[0]
    lacking = dataclasses.replace(corpus, events=corpus.events[corpus.events["label"] != 2].reset_index(drop=True))
    with pytest.raises(MarginError, match="every class needs a clip"):
        training.fit(dataclasses.replace(QUICK, method=method, seed=77), lacking)


def test_a_full_disk_is_answered_and_survived(train, earlier, monkeypatch):
    sync, room = os.fsync, [1]

    def full(file):
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room.pop()
        sync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"cannot write the run to .*: No space left on device.*QLUNG_RUNS"):
        train()
    monkeypatch.setattr(os, "fsync", sync)
    epochs = []
    run = train(progress=lambda epoch, line: epochs.append(epoch))
    assert epochs == [2, 3]
    assert weights(run) == weights(train(into="whole"))


def test_a_checkpoint_that_fails_leaves_no_open_buffer(tmp_path, monkeypatch):
    """Python 3.12.1 crashes when its garbage collector finds one in the traceback of the error."""
    given = []

    def full(path, content):
        given.append(content)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runs, "_write_synced", full)
    with pytest.raises(TrainingError, match="No space left on device"):
        runs.save_checkpoint(tmp_path, {"model": {"x": torch.zeros(10)}})
    with pytest.raises(ValueError, match="released"):
        bytes(given[0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: a full device cannot be imitated here")
def test_a_full_device_is_named_for_what_it_is(tmp_path, monkeypatch):
    """torch.save itself would complain of an unexpected position in its own file."""
    monkeypatch.setattr(runs.paths, "write_atomically", lambda path, write: write(Path("/dev/full")))
    for numbers in (10, 10**6):
        with pytest.raises(TrainingError, match="No space left on device"):
            runs.save_checkpoint(tmp_path, {"model": {"x": torch.zeros(numbers)}})


def test_an_unwritable_folder_is_named(train, tmp_path):
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(TrainingError, match=r"cannot write the run to .*taken.*QLUNG_RUNS"):
        train(into="taken")


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
