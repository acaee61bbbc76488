"""How classes lie on the sphere: angles of clips to prototypes, and of prototypes to each other."""

import numpy as np
import pandas as pd


def angles(predictions: pd.DataFrame) -> pd.DataFrame:
    """Each clip's angle to its target prototype and to the nearest other one, and `separation` [deg], as columns."""
    theta = np.degrees(np.arccos(predictions[["c0", "c1", "c2", "c3"]].to_numpy(float).clip(-1, 1)))
    target = np.arange(4) == predictions["label"].to_numpy()[:, None]
    nearest = np.where(target, np.inf, theta).min(1)
    out = pd.DataFrame({"target": theta[target], "nearest_other": nearest}, index=predictions.index)
    return out.assign(separation=nearest - theta[target])


def separation(predictions: pd.DataFrame) -> pd.Series:
    """Angle to the nearest other prototype minus angle to the target one, per clip [deg]; below 0 is an error."""
    return angles(predictions)["separation"]


def standardised_separation(predictions: pd.DataFrame) -> pd.Series:
    """`separation` per clip, in units of its sd within a class: free of the scale of the angles, which methods change.

    The sd is each network's own (columns method, seed), from the mean over classes of the variance within the class.
    """
    values, network = separation(predictions), [predictions["method"], predictions["seed"]]
    variance = values.groupby([*network, predictions["label"]]).var().groupby(level=[0, 1]).mean()
    return values / np.sqrt(variance.loc[list(zip(*network, strict=True))].to_numpy())


def prototype_angles(prototypes) -> np.ndarray:
    """Angle of each prototype to the nearest other one [shape=(C,), deg]; of unit length, as ``Run.prototypes`` [C, d].

    Four directions can all be arccos(-1/3) = 109.5 degrees apart, and no further (a regular simplex).
    """
    unit = np.asarray(prototypes, dtype=float)
    cosine = unit @ unit.T - 3 * np.eye(len(unit))  # a class is not its own neighbour
    return np.degrees(np.arccos(cosine.max(1).clip(-1, 1)))
