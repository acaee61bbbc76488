"""Encoders: features -> embedding. Each declares the front end it wants and the size of its embedding."""

import dataclasses
import functools
import hashlib
import os
from pathlib import Path

import safetensors
import torch
from torch import Tensor, nn

from . import paths
from .audio.frontends import FrontEnd, mn_logmel
from .cache import code_version
from .errors import ConfigError, WeightsError, choices

HUB = {"ast": "MIT/ast-finetuned-audioset-10-10-0.4593", "clap": "laion/clap-htsat-unfused"}
MN04_FILE = "mn04_as_mAP_432.pt"
MN04_URL = f"https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/{MN04_FILE}"
MN04_SHA256 = "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"


def pool(maps: Tensor, filled: Tensor | None, axis: int) -> Tensor:
    """Mean of feature maps [B, C, a, b] over both axes -> [B, C]; of ``axis``, time, only each clip's filled share."""
    if filled is None:
        return maps.mean((2, 3))
    size = maps.shape[axis]
    inside = torch.arange(size, device=maps.device) < (filled[:, None] * size).ceil()
    weight = (inside / inside.sum(1, keepdim=True))[:, None]
    return (maps.mean(5 - axis) * weight).sum(2)


class SmallCNN(nn.Module):
    """Four strided convolutions and a mean: 64-d, 61 k parameters, for the demo and as a third encoder."""

    front_end = FrontEnd("ast", 16000)
    dim = 64
    weights = "random: there are no pretrained ones"

    def __init__(self):
        super().__init__()
        layers = []
        for before, width, kernel, stride in ((1, 16, 5, 4), (16, 32, 3, 2), (32, 64, 3, 2), (64, 64, 3, 2)):
            convolution = nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        self.features = nn.Sequential(*layers)

    def forward(self, features: Tensor, filled: Tensor | None = None) -> Tensor:
        """[B, frames, mel] -> [B, 64]."""
        return pool(self.features(features[:, None]), filled, axis=2)


def _width(channels: float) -> int:
    """Round to a multiple of 8, never more than 10 % down (Howard et al. 2019)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv_norm(before, after, kernel=1, stride=1, groups=1, act=nn.Hardswish) -> nn.Sequential:
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after, eps=1e-3, momentum=0.01), *([act()] if act else []))


class _SqueezeExcite(nn.Module):
    """Channel gates from the mean over frequency and time."""

    def __init__(self, channels):
        super().__init__()
        fewer = _width(channels / 4)
        gate = {"fc1": nn.Linear(channels, fewer), "fc2": nn.Linear(fewer, channels)}
        self.conc_se_layers = nn.ModuleList([nn.ModuleDict(gate)])

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conc_se_layers[0]
        return x * torch.sigmoid(gate.fc2(torch.relu(gate.fc1(x.mean((2, 3))))))[:, :, None, None]


class _InvertedResidual(nn.Module):
    def __init__(self, before, expanded, after, kernel, stride, squeeze, act):
        super().__init__()
        layers = [_conv_norm(before, expanded, act=act)] if expanded != before else []
        layers.append(_conv_norm(expanded, expanded, kernel, stride, expanded, act))
        layers += [_SqueezeExcite(expanded)] if squeeze else []
        self.block = nn.Sequential(*layers, _conv_norm(expanded, after, act=None))
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.residual else self.block(x)


_R, _H = nn.ReLU, nn.Hardswish
# Howard et al. 2019, Table 1: kernel, expanded, out, squeeze-excitation, non-linearity, stride
_LARGE = (
    (3, 16, 16, False, _R, 1), (3, 64, 24, False, _R, 2), (3, 72, 24, False, _R, 1), (5, 72, 40, True, _R, 2),
    (5, 120, 40, True, _R, 1), (5, 120, 40, True, _R, 1), (3, 240, 80, False, _H, 2), (3, 200, 80, False, _H, 1),
    (3, 184, 80, False, _H, 1), (3, 184, 80, False, _H, 1), (3, 480, 112, True, _H, 1), (3, 672, 112, True, _H, 1),
    (5, 672, 160, True, _H, 2), (5, 960, 160, True, _H, 1), (5, 960, 160, True, _H, 1),
)  # fmt: skip


class MobileNet(nn.Module):
    """MobileNetV3-large at width 0.4, the layout of EfficientAT's mn04: 384-d embedding, AudioSet-pretrained.

    References
    ----------
    Schmid, Koutini, Widmer, ICASSP 2023; Howard et al., ICCV 2019.
    """

    front_end = FrontEnd("mn", 32000)
    dim = 384
    weights = "RANDOM: pretrained=False"

    def __init__(self, width: float = 0.4):
        super().__init__()
        before = _width(16 * width)
        layers = [_conv_norm(1, before, 3, 2)]
        for kernel, expanded, after, squeeze, act, stride in _LARGE:
            after = _width(after * width)
            layers.append(_InvertedResidual(before, _width(expanded * width), after, kernel, stride, squeeze, act))
            before = after
        layers.append(_conv_norm(before, 6 * before))
        self.features = nn.Sequential(*layers)
        tags = [nn.Linear(6 * before, 512), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(512, 527)]  # of AudioSet
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *tags)  # only checks the weights

    def forward(self, features: Tensor, filled: Tensor | None = None) -> Tensor:
        """[B, 128, frames] -> [B, 384]."""
        return pool(self.features(features[:, None]), filled, axis=3)


@dataclasses.dataclass(frozen=True)
class Embedded(FrontEnd):
    """A front end that goes one step further: the clip's embedding by the AudioSet-pretrained mn04, never trained."""

    weights: str = MN04_SHA256
    code: str = dataclasses.field(default_factory=lambda: code_version("audio", "backbones"))

    def __call__(self, waveform: Tensor) -> Tensor:
        """Waveforms [B, n] -> embeddings [B, 384]."""
        with torch.inference_mode():
            return _frozen_mn04()(mn_logmel(waveform, self.sample_rate))


@functools.lru_cache(1)
def _frozen_mn04() -> nn.Module:
    return build_backbone("mn04").eval()


class Projector(nn.Module):
    """Two layers on mn04's frozen embedding: seconds per run, for comparisons with many seeds."""

    dim = 128
    weights = f"{MN04_FILE}, frozen; projector random"

    def __init__(self):
        super().__init__()
        self.front_end = Embedded("mn04_embedding", 32000)
        hidden = nn.LayerNorm(384), nn.Linear(384, 256), nn.ReLU(), nn.Dropout(0.2)
        self.layers = nn.Sequential(*hidden, nn.Linear(256, self.dim))

    def forward(self, features: Tensor, filled: Tensor | None = None) -> Tensor:
        """[B, 384] -> [B, 128]; silence in the clips is part of their embedding."""
        return self.layers(features)


class AST(nn.Module):
    """Audio Spectrogram Transformer, the paper's first encoder: 768-d, the mean of its two class tokens.

    References
    ----------
    Gong, Chung, Glass, Interspeech 2021; its ImageNet and AudioSet weights, position embeddings fitted to 8 s.
    """

    front_end = FrontEnd("ast", 16000)
    weights = "RANDOM: pretrained=False"

    def __init__(self, network: nn.Module):
        super().__init__()
        fit_positions(network)
        self.network, self.dim = network, network.config.hidden_size

    def forward(self, features: Tensor, filled: Tensor | None = None) -> Tensor:
        """[B, 798, 128] -> [B, 768], of all frames: class tokens take no shares."""
        return self.network(features).pooler_output  # (cls + distillation) / 2


def fit_positions(network: nn.Module, frames: int = 798) -> None:
    """Cut an AST's position embeddings to the middle ``frames`` of its longer grid."""
    config, embeddings = network.config, network.embeddings
    height, width = embeddings.get_shape(config)
    config.max_length = frames
    wanted, positions = embeddings.get_shape(config)[1], embeddings.position_embeddings.detach()
    start = width // 2 - wanted // 2
    middle = positions[:, 2:].unflatten(1, (height, width))[:, :, start : start + wanted]  # [1, height, wanted, d]
    embeddings.position_embeddings = nn.Parameter(torch.cat([positions[:, :2], middle.flatten(1, 2)], 1))


class CLAP(nn.Module):
    """Audio tower of LAION-CLAP (HTS-AT, no fusion), the paper's second encoder: the 512-d audio embedding.

    References
    ----------
    Wu et al., ICASSP 2023; Chen et al., ICASSP 2022.
    """

    front_end = FrontEnd("clap", 48000)
    weights = "RANDOM: pretrained=False"

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.dim = network, network.config.projection_dim

    def forward(self, features: Tensor, filled: Tensor | None = None) -> Tensor:
        """[B, 1001, 64] -> [B, 512], of all frames; its front end adds silence itself."""
        return self.network(features[:, None]).audio_embeds


def weights_dir() -> Path:
    """Where pretrained weights lie: ``$QLUNG_WEIGHTS``, else the cache."""
    return Path(os.environ.get("QLUNG_WEIGHTS") or paths.cache_dir() / "weights").expanduser()


def _from_hub(name: str, pretrained: bool) -> nn.Module:
    """AST or CLAP through transformers: safetensors from ``$QLUNG_WEIGHTS``/name or the hub, never a pickle."""
    import transformers  # slow, and only these two need it

    wrap, kind = {"ast": (AST, transformers.ASTModel), "clap": (CLAP, transformers.ClapAudioModelWithProjection)}[name]
    if not pretrained:
        return wrap(kind(kind.config_class()))
    folder = weights_dir() / name
    source = folder if folder.is_dir() else HUB[name]
    try:
        network, loaded = kind.from_pretrained(source, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        wanted = f"put config.json and model.safetensors of {HUB[name]} in '{folder}', or connect to huggingface.co"
        raise WeightsError(f"{name} needs its weights: {wanted} once. Tried '{source}': {error}") from error
    if wrong := sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]])):
        raise WeightsError(f"'{source}' does not fit {name}: {len(wrong)} tensors missing or wrong, first {wrong[0]}")
    model, local = wrap(network), folder / "model.safetensors"
    if folder.is_dir():
        model.weights = f"{local.name} {_sha256(local)}"
    else:
        model.weights = f"{source} {network.config._commit_hash}"
    return model


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def mn04_weights() -> Path:
    """Path of the AudioSet weights, checked by sha256: ``$QLUNG_WEIGHTS`` (a folder or the file), else the cache."""
    named = weights_dir()
    path = named if named.is_file() else named / MN04_FILE
    if not path.is_file():
        raise WeightsError(f"mn04 needs its weights: run `qlung data fetch weights`, or put {MN04_URL} at '{path}'.")
    if (digest := _sha256(path)) != MN04_SHA256:
        raise WeightsError(f"'{path}' has sha256 {digest}, not {MN04_SHA256}: delete it and fetch it again.")
    return path


def build_backbone(name: str, pretrained: bool = True) -> nn.Module:
    """Build an encoder with ``front_end`` and ``dim``; its forward maps features to embeddings [B, dim].

    Parameters
    ----------
    name : {"cnn", "mn04", "mn04_frozen", "ast", "clap"}
    pretrained : bool
        Load the AudioSet (clap: LAION-Audio) weights. The cnn has none; mn04_frozen needs them. False gives random
        ones, which ``weights`` names; a run writes that to its record.

    Raises
    ------
    ConfigError, WeightsError
    """
    if name in HUB:
        return _from_hub(name, pretrained)
    if name == "mn04_frozen" and not pretrained:
        raise ConfigError("mn04_frozen needs pretrained=True: random frozen features would be noise")
    if name not in (kinds := {"cnn": SmallCNN, "mn04": MobileNet, "mn04_frozen": Projector}):
        raise ConfigError(f"unknown backbone '{name}': {choices(name, [*kinds, *HUB])}")
    model = kinds[name]()
    if name == "mn04" and pretrained:
        path = mn04_weights()
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        model.weights = path.name
    return model
