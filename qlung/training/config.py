"""One run's configuration."""

import math
import re
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from ..errors import ConfigError, choices
from ..margins.methods import METHODS, PUBLISHED
from ..quality import NORMALISERS, sources

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
# Types are taken as they are ("3" is no number), unknown settings are errors, and so are NaN and infinity.
STRICT = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Settings:
    """Checked settings: what is unknown, of the wrong type or out of range is a ConfigError."""

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _check(cls, settings, validate):
        try:
            return validate(settings)
        except pydantic.ValidationError as error:
            raise ConfigError(explain(error, cls.__dataclass_fields__)) from error


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Config(Settings):
    """One run. Defaults are the paper's where it states them; the rest is in the interpretation ledger.

    Notes
    -----
    checkpoint : "last" epoch; the best epoch on a fifth of the training patients, held out ("val"); or the best on the
        first test corpus ("best_on_test"), which uses the test labels and is there to measure that bias.
    accumulate : parts a batch is computed in. It saves memory; batch_size stays the size of a step.
    ma_update : the family's average of every step's weights with those before it, w <- b w_old + (1 - b) w_new. Adam's
        step is proportional to its rate, so that is a rate of (1 - b) lr: their 0.5 halves every step.
    quality : where the margin's quality comes from, one of ``sources.SOURCES``.
    head : "" is the method's own; "linear" or "angular" is another definition of a row of Table 3.
    pad : how an event shorter than the clip fills it; with "silence", cnn and mn04 average over the filled frames only.
    band_hz : remove all above this frequency first, in training and in tests; 0 removes nothing.
    masks : SpecAugment's longest masks, as a share of the family's; ``augment = false`` is training without them. Masks
        of time are as much shorter as a ``crop_s`` is than the clip.
    crop_s : train on a random window of each clip, this long [s], another one in every epoch; 0 is the whole clip.
        Tests hear the whole clip.
    tilt_db : a random gain and a random slope of the spectrum in every clip and epoch, each up to so many dB [0, inf).
    band_mix : share of training batches in which `frontends.mix_bands` changes each clip's statistics per band.
    head_init : the class weights' size at the start, as a share of Xavier's.
    probe_epochs : how many epochs at the start train the head alone, with the encoder as it was pretrained.
    head_lr : learning rate of the class weights and bias, as a multiple of ``lr``.
    warm_up : share of all steps in which the learning rate rises linearly; then the cosine begins.
    frozen_blocks : how many of mn04's 17 blocks, from the input on, stay as they were pretrained.
    batch_norm : "train" updates batch norm's statistics and uses each batch's; "frozen" uses the pretrained ones.
    average : the network is the mean of the weights after each of so many last epochs.
    balance : draw training clips with replacement, every "class" as often, or every class of every "device".
    precision : "fp32", or mixed "bf16" or (on a GPU) "fp16"; cosines, margins and losses are fp32 always.

    Raises
    ------
    ConfigError
        If a setting is unknown, of the wrong type or out of range.
    """

    method: Literal[*METHODS] = "qlung"
    backbone: Literal["cnn", "mn04", "mn04_frozen", "ast", "clap"] = "cnn"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    epochs: Count = 50
    batch_size: Count = 8
    lr: Positive = 5e-5
    weight_decay: NotNegative = 1e-6
    scale_cls: Positive = 37.0
    scale_margin: Positive = 15.0
    lam: NotNegative = 0.4
    gamma: Share = 0.5
    kappa: NotNegative = 0.5
    class_target: NotNegative = 0.2
    fixed_margin: Annotated[float, Field(ge=0, le=math.pi)] = 0.2
    alpha: Share = 0.7
    beta: Share = 0.3
    normalise: Literal[*NORMALISERS] = "none"
    quality: Literal[*sources.SOURCES] = "aqs"
    head: Literal["", "linear", "angular"] = ""
    augment: bool = True
    pad: Literal["repeat", "silence", "reflect"] = "repeat"
    band_hz: NotNegative = 0.0
    pretrained: bool = True
    checkpoint: Literal["last", "val", "best_on_test"] = "last"
    accumulate: Count = 1
    ma_update: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    masks: Share = 1.0
    crop_s: Annotated[float, Field(ge=0, le=8)] = 0.0
    tilt_db: NotNegative = 0.0
    band_mix: Share = 0.0
    head_init: Positive = 1.0
    probe_epochs: Annotated[int, Field(ge=0)] = 0
    head_lr: Positive = 1.0
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.0
    frozen_blocks: Annotated[int, Field(ge=0, le=17)] = 0
    batch_norm: Literal["train", "frozen"] = "train"
    average: Count = 1
    balance: Literal["", "class", "device"] = ""

    def __post_init__(self):
        if self.head and self.method in PUBLISHED:
            raise ConfigError(f"method '{self.method}' has its own head: leave out head='{self.head}'")
        if self.backbone not in ("cnn", "mn04") and (self.crop_s or self.tilt_db or self.band_mix):
            raise ConfigError(f"crop_s, tilt_db and band_mix go with cnn and mn04, not with {self.backbone}")
        if self.frozen_blocks and self.backbone != "mn04":
            raise ConfigError(f"frozen_blocks goes with mn04, not with {self.backbone}")
        if self.crop_s and self.pad == "silence":
            raise ConfigError("crop_s goes with pad='repeat' or 'reflect': a window of the silence would hold no sound")
        if max(self.probe_epochs + 1, self.average) > self.epochs:
            wanted = f"probe_epochs={self.probe_epochs} below, and average={self.average} at most"
            raise ConfigError(f"{wanted}, the number of epochs ({self.epochs})")
        if self.average > 1 and self.checkpoint != "last":
            raise ConfigError(f"average={self.average} goes with checkpoint='last', not '{self.checkpoint}'")

    @property
    def name(self) -> str:
        """For people: backbone-method seed n."""
        return f"{self.backbone}-{self.method} seed {self.seed}"


def explain(error: pydantic.ValidationError, settings) -> str:
    """The first fault in one sentence: setting, value, what is expected, and the nearest of all ``settings``."""
    fault = max(error.errors(), key=lambda fault: fault["type"] == "unexpected_keyword_argument")  # else the first
    name, value = ".".join(map(str, fault["loc"])), fault["input"]
    if fault["type"] == "unexpected_keyword_argument":
        return f"unknown setting '{name}': {choices(name, settings)}"
    if fault["type"] == "literal_error":
        known = [word or "''" for word in re.findall("'(.*?)'", fault["ctx"]["expected"])]
        return f"unknown {name} {value!r}: {choices(value, known)}"
    return f"{name}: {fault['msg']}, it is {value!r} ({type(value).__name__})".replace(": Input", "", 1)
