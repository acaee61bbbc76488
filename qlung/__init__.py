"""Thin helper under the QLung companion's notebooks: corpora, quality, margins, training, evaluation, claims."""

import importlib

__version__ = "0.1.0"
__all__ = ["AngularClassifier", "QLungLoss", "load_corpus"]  # noqa: F822 (loaded when they are asked for)
_HOMES = {"AngularClassifier": "margins", "QLungLoss": "margins", "load_corpus": "corpora"}


def __getattr__(name: str):
    """Import a public name from its room when it is first asked for: a loss needs neither pandas nor Jupyter."""
    if name not in _HOMES:
        raise AttributeError(f"module 'qlung' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
