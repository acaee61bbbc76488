"""``Corpus`` -> clips -> features: read, resample, cut and pad recordings; log-mel front ends; graded degradations.

Comes in: a corpus' tables. Goes out: clips in the order of its events, and a front end's features of them, cached.
Notebooks 01 and 02.
"""

from .clips import batches, cut, cut_clips, fade, fit_length, map_clips, mono, read
