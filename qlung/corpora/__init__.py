"""Owners' files -> ``Corpus(recordings, events, report)``: every corpus behind one table schema.

Comes in: a folder in the owners' layout. Goes out: two tables and a report of what was set aside. Notebook 01.
"""

from .registry import Source, find, load_corpus, register
from .tables import ASIDE, CLASSES, EVENTS, RECORDINGS, SHORTEST_S, Corpus, Tables

__all__ = [
    "ASIDE", "CLASSES", "EVENTS", "RECORDINGS", "SHORTEST_S", "Corpus", "Source", "Tables", "find", "load_corpus",
    "register",
]  # fmt: skip
