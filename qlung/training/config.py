"""One run's configuration."""

import difflib
import math
import re
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from ..errors import ConfigError
from ..margins.methods import METHODS, PUBLISHED
from ..quality import NORMALISERS, sources

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
# Types are taken as they are ("3" is no number), unknown settings are errors, and so are NaN and infinity.
STRICT = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Config:
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
    precision : "fp32", or mixed "bf16" or (on a GPU) "fp16"; cosines, margins and losses are fp32 always.

    Raises
    ------
    ConfigError
        If a setting is unknown, of the wrong type or out of range.
    """

    method: Literal[*METHODS] = "qlung"
    backbone: Literal["cnn", "mn04", "mn04_frozen", "ast", "clap"] = "cnn"
    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Count = 50
    batch_size: Count = 8
    lr: Positive = 5e-5
    weight_decay: NotNegative = 1e-6
    scale_cls: Positive = 37.0
    scale_margin: Positive = 15.0
    lam: NotNegative = 0.4
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.5
    kappa: NotNegative = 0.5
    class_target: NotNegative = 0.2
    fixed_margin: Annotated[float, Field(ge=0, le=math.pi)] = 0.2
    alpha: float = 0.7
    beta: float = 0.3
    normalise: Literal[*NORMALISERS] = "none"
    quality: Literal[*sources.SOURCES] = "aqs"
    head: Literal["", "linear", "angular"] = ""
    augment: bool = True
    pretrained: bool = True
    checkpoint: Literal["last", "val", "best_on_test"] = "last"
    accumulate: Count = 1
    ma_update: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _check(cls, settings, validate):
        try:
            config = validate(settings)
        except pydantic.ValidationError as error:
            raise ConfigError(explain(error, cls.__dataclass_fields__)) from error
        if config.head and config.method in PUBLISHED:
            raise ConfigError(f"method '{config.method}' has its own head: leave out head='{config.head}'")
        return config

    @property
    def name(self) -> str:
        """For people: backbone-method seed n."""
        return f"{self.backbone}-{self.method} seed {self.seed}"


def explain(error: pydantic.ValidationError, settings) -> str:
    """The first fault in one sentence: setting, value, what is expected, and the nearest word.

    Parameters
    ----------
    settings : iterable of str
        Names of all settings.
    """
    fault = error.errors()[0]
    name, kind, value = fault["loc"][0], fault["type"], fault["input"]
    if kind.endswith("_type"):
        return f"{name} should be {kind.removesuffix('_type')}, it is {value!r} ({type(value).__name__})"
    if kind == "literal_error":
        word, what, choices = value, f"{name} {value!r}", re.findall("'(.*?)'", fault["ctx"]["expected"])
    elif kind == "unexpected_keyword_argument":
        word, what, choices = name, f"setting '{name}'", list(settings)
    else:
        return f"{fault['msg'].replace('Input', str(name), 1)}, it is {value!r}"
    nearest = difflib.get_close_matches(str(word), choices, 1)
    hint = f". Did you mean '{nearest[0]}'?" if nearest else ""
    return f"unknown {what}: choose from {', '.join(choice or repr(choice) for choice in choices)}{hint}"
