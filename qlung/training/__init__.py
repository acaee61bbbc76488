"""Configuration and ``Corpus`` -> a run's folder: the loop, its checkpoints, and studies of many runs.

Comes in: a `Config` and a training corpus. Goes out: runs/<profile>/<backbone>-<method>/<key> with weights, history,
predictions and a record. Notebook 04.
"""

import warnings

# tqdm says so in a notebook when accelerate imports it; no bar of its is ever shown.
warnings.filterwarnings("ignore", message="IProgress not found")

from ..margins.methods import METHODS
from .config import Config
from .loop import fit
from .model import Model, predict
from .runs import Run, run_folder
