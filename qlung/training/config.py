"""One run's configuration."""

import dataclasses

from ..errors import ConfigError
from ..margins.methods import METHODS, PUBLISHED
from ..quality import sources

CHOICES = {
    "method": tuple(METHODS),
    "checkpoint": ("last", "val", "best_on_test"),
    "precision": ("fp32", "bf16", "fp16"),
    "quality": tuple(sources.SOURCES),
    "head": ("", "linear", "angular"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Defaults are the paper's where it states them; the rest is in the interpretation ledger.

    Notes
    -----
    checkpoint : "last" epoch; the best epoch on a fifth of the training patients, held out ("val"); or the best on the
        first test corpus ("best_on_test"), which looks at the answers and is there to measure that bias.
    accumulate : parts a batch is computed in. It saves memory; batch_size stays the size of a step.
    ma_update : the family's average of every step's weights with those before it, w <- b w_old + (1 - b) w_new. Adam's
        step is proportional to its rate, so that is a rate of (1 - b) lr: their 0.5 halves every step.
    quality : where the margin's quality comes from, one of ``sources.SOURCES``.
    head : "" is the method's own; "linear" or "angular" is another reading of a row of Table 3.
    precision : "fp32", or mixed "bf16" or (on a GPU) "fp16"; cosines, margins and losses are fp32 always.
    """

    method: str = "qlung"
    backbone: str = "cnn"
    seed: int = 0
    epochs: int = 50
    batch_size: int = 8
    lr: float = 5e-5
    weight_decay: float = 1e-6
    scale_cls: float = 37.0
    scale_margin: float = 15.0
    lam: float = 0.4
    gamma: float = 0.5
    kappa: float = 0.5
    class_target: float = 0.2
    fixed_margin: float = 0.2
    alpha: float = 0.7
    beta: float = 0.3
    normalise: str = "none"
    quality: str = "aqs"
    head: str = ""
    augment: bool = True
    pretrained: bool = True
    checkpoint: str = "last"
    accumulate: int = 1
    ma_update: float = 0.0
    precision: str = "fp32"
    compile: bool = False

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, want = getattr(self, field.name), field.type
            if want is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not want:
                raise ConfigError(f"{field.name} should be {want.__name__}, it is {value!r} ({type(value).__name__})")
            if value not in CHOICES.get(field.name, (value,)):
                known = ", ".join(CHOICES[field.name])
                raise ConfigError(f"unknown {field.name} '{value}': choose from {known}")
        if self.head and METHODS[self.method][1] in PUBLISHED:
            raise ConfigError(f"method '{self.method}' has its own head: leave out head='{self.head}'")
        sizes = {name: getattr(self, name) for name in ("epochs", "batch_size", "accumulate", "lr")}
        if not all(size > 0 for size in sizes.values()) or not 0 <= self.ma_update < 1:
            raise ConfigError(f"these must be positive, and 0 <= ma_update < 1: {sizes}, ma_update {self.ma_update}")

    @property
    def name(self) -> str:
        """For people: backbone-method seed n."""
        return f"{self.backbone}-{self.method} seed {self.seed}"
