"""AST and CLAP: front ends against the reference, position embeddings, where weights come from."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers

from qlung import backbones, load_corpus, training
from qlung.audio import frontends
from qlung.errors import WeightsError

SMALL = {
    "ast": transformers.ASTModel(transformers.ASTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        frequency_stride=16, time_stride=16)),
    "clap": transformers.ClapAudioModelWithProjection(transformers.ClapAudioConfig(
        patch_embeds_hidden_size=8, hidden_size=16, depths=[1, 1], num_attention_heads=[1, 2], num_hidden_layers=2,
        projection_dim=12)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Small networks as local weights, as a user would put the real ones."""
    for name, network in SMALL.items():
        network.save_pretrained(tmp_path / name)
    monkeypatch.setenv("QLUNG_WEIGHTS", str(tmp_path))
    return tmp_path


def test_clap_features_equal_the_reference():
    waves = 0.1 * torch.randn(2, 8 * 48000, generator=torch.Generator().manual_seed(0))
    extractor = transformers.ClapFeatureExtractor(frequency_min=50, frequency_max=14000, truncation="rand_trunc")
    theirs = extractor(list(waves.numpy()), sampling_rate=48000, return_tensors="pt")["input_features"][:, 0]
    ours = backbones.CLAP.front_end(waves)
    assert ours.shape == theirs.shape == (2, 1001, 64)
    torch.testing.assert_close(ours, theirs.float(), atol=5e-3, rtol=0)


def test_positions_are_cut_in_the_middle():
    """The family's rule: 101 columns of 10 s become the middle 79 of them for 8 s."""
    network = transformers.ASTModel(transformers.ASTConfig(hidden_size=4, num_hidden_layers=1, num_attention_heads=1))
    before = torch.arange(1214.0)[None, :, None].expand(1, 1214, 4)
    network.embeddings.position_embeddings = torch.nn.Parameter(before)
    backbones.fit_positions(network)
    after = network.embeddings.position_embeddings
    assert after.shape == (1, 2 + 12 * 79, 4)
    assert after[0, :2, 0].tolist() == [0, 1]
    grid = before[0, 2:, 0].reshape(12, 101)[:, 50 - 39 : 50 - 39 + 79]
    assert torch.equal(after[0, 2:, 0].reshape(12, 79), grid)
    assert network(torch.zeros(1, 798, 128)).pooler_output.shape == (1, 4)


@pytest.mark.parametrize(("name", "shape", "dim"), [("ast", (2, 798, 128), 32), ("clap", (2, 1001, 64), 12)])
def test_local_weights_are_loaded(name, shape, dim, small):
    model = backbones.build_backbone(name).eval()
    x = torch.randn(shape)
    assert model(x).shape == (2, dim)
    assert model.front_end(torch.randn(2, int(8 * model.front_end.sample_rate))).shape == shape
    assert model.weights.startswith("model.safetensors ")
    if name == "ast":
        hidden = model.network(x).last_hidden_state
        torch.testing.assert_close(model(x), (hidden[:, 0] + hidden[:, 1]) / 2)
    for key, value in SMALL[name].state_dict().items():
        if "position_embeddings" not in key:
            assert torch.equal(model.network.state_dict()[key], value), key


@pytest.mark.parametrize("name", ["ast", "clap"])
def test_weights_that_are_missing_or_of_another_model_are_refused(name, small, tmp_path, monkeypatch):
    (small / name / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=rf"put config.json and model.safetensors of {backbones.HUB[name]} in"):
        backbones.build_backbone(name)
    from safetensors.torch import save_file

    save_file({"something.else": torch.zeros(3)}, small / name / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match="does not fit"):
        backbones.build_backbone(name)
    monkeypatch.setenv("QLUNG_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match=rf"{backbones.HUB[name]} in '.*nowhere.{name}', or connect"):
        backbones.build_backbone(name)


def test_random_weights_are_loud_and_a_run_repeats(small, synthetic_root, tmp_path, monkeypatch):
    corpus = load_corpus("icbhi", synthetic_root).select("train")
    events = corpus.events.groupby("label").head(2).reset_index(drop=True)
    corpus = dataclasses.replace(corpus, events=events)
    config = training.Config(backbone="ast", epochs=1, batch_size=4, lr=1e-3)
    monkeypatch.setenv("QLUNG_RUNS", str(tmp_path / "runs"))
    run = training.fit(config, corpus)
    assert json.loads((run.folder / "run.json").read_text())["weights"].startswith("model.safetensors")
    monkeypatch.setattr(transformers.ASTModel, "config_class", lambda: SMALL["ast"].config)
    said = []
    random = dataclasses.replace(config, pretrained=False)
    run = training.fit(random, corpus, progress=lambda epoch, line: said.append(line))
    assert "weights RANDOM" in said[0]
    assert "RANDOM" in json.loads((run.folder / "run.json").read_text())["weights"]
    assert frontends.extract(corpus, backbones.AST.front_end).shape == (8, 798, 128)
    assert np.isfinite(run.history["loss"]).all()
