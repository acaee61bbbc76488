"""``Corpus`` -> audio-quality score (AQS) in [0, 1], its controls and its audit.

Comes in: a corpus. Goes out: entropy, level and AQS of every event; other sources of the quality margin; how a score
changes with the severity of a degradation. Notebook 02.
"""

from .aqs import BINS, DEFAULT_DEFINITION, NORMALISERS, RATE, SCOPES
from .aqs import QualityScorer, measure, rms_dbfs, spectral_entropy
