"""Owners' files -> ``Corpus(recordings, events, report)``: every corpus behind one table schema.

Comes in: a folder in the owners' layout. Goes out: two tables and a report of what was left out. Notebook 01.
"""

from .registry import Source, find, load_corpus, register, sources
from .tables import CLASSES, Corpus, from_rows

__all__ = ["CLASSES", "Corpus", "Source", "find", "from_rows", "load_corpus", "register", "sources"]
