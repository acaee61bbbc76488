"""Predictions -> scores, intervals, angles and verdicts; nothing here loads torch.

Comes in: a table of predictions, one row per network and clip. Goes out: scores, 95 % intervals over patients and
seeds, tables, and what the paper's claims look like. Notebooks 05 to 08.
"""

from .intervals import STATISTICS, auroc_interval, bootstrap, difference, holm, interval, permutation_p, resample
from .metrics import Score, auroc, auroc_within, biocas, confusion, icbhi_score, measures, reliability
from .tables import contrasts, every_measure, measure_table, over_seeds, score_table, scores, trivial_baselines
