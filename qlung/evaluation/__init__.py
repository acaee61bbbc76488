"""Predictions -> scores, intervals, angles and verdicts; nothing here loads torch.

Comes in: a table of predictions, one row per network and clip. Goes out: scores, 95 % intervals over patients and
seeds, tables, and what the paper's claims look like. Notebooks 05 to 08.
"""

from .intervals import (
    STATISTICS, auroc_interval, bootstrap, contributions, crossed, difference, effective_number, holm, interval,
    resample, sd_ratio
)  # fmt: skip
from .metrics import (
    PROBABILITIES, Score, auroc, biocas, confusion, icbhi_score, measures, odds, reliability
)  # fmt: skip
from .operating import LINES, at_line, curve
from .tables import contrasts, every_measure, measure_table, over_seeds, ranking, score_table, scores, trivial_baselines
