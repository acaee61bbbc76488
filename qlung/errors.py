"""Errors a user can act on: what was given, what was expected, what to do next."""

import difflib
from collections.abc import Collection


class QlungError(Exception):
    """Root of every error this package raises on purpose."""


class CorpusError(QlungError):
    """A corpus folder is missing, incomplete or not in its owners' layout."""


class AudioError(QlungError):
    """A recording cannot be read or cut."""


class QualityError(QlungError):
    """A quality definition, indicator, source or scorer is unknown, not fitted, or has nothing to measure."""


class MarginError(QlungError):
    """A margin, scale, class count or tensor shape is out of range."""


class ConfigError(QlungError):
    """A profile, method, backbone or parameter is unknown or has the wrong type."""


class WeightsError(QlungError):
    """Pretrained weights are missing, damaged or of another model."""


class TrainingError(QlungError):
    """A run diverged or cannot be resumed."""


def choices(given: str, known: Collection[str]) -> str:
    """For an error about an unknown name: the known ones, and the nearest to what was given."""
    near = difflib.get_close_matches(str(given), known, n=1)
    return f"choose from {', '.join(known)}" + (f"; did you mean '{near[0]}'?" if near else "")
