"""Owners' files -> ``Corpus(recordings, events, report)``: every corpus behind one table schema.

Comes in: a folder in the owners' layout. Goes out: two tables and a report of what was left out. Notebook 01.
"""

from .registry import Source, find, load_corpus, register, sources
from .tables import ASIDE, CLASSES, EVENTS, RECORDINGS, SHORTEST_S, Corpus, Tables, Unusable, from_rows

__all__ = [
    "ASIDE", "CLASSES", "EVENTS", "RECORDINGS", "SHORTEST_S", "Corpus", "Source", "Tables", "Unusable", "find",
    "from_rows", "load_corpus", "register", "sources",
]  # fmt: skip
