"""How classes lie on the sphere: angles of clips to prototypes, of prototypes to each other, and of the embeddings."""

import numpy as np
import pandas as pd

from ..corpora import CLASSES


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


def by_class(predictions: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean of `angles` per group and class: by, class, n, target, nearest_other, separation."""
    names = predictions["label"].map(dict(enumerate(CLASSES))).rename("class")
    grouped = angles(predictions).groupby([*(predictions[name] for name in by), names], sort=False)
    return pd.concat([grouped.size().rename("n"), grouped.mean()], axis=1).reset_index()


def prototype_angles(prototypes) -> np.ndarray:
    """Angle of each prototype to the nearest other one [shape=(C,), deg]; of unit length, as ``Run.prototypes`` [C, d].

    Four directions can all be arccos(-1/3) = 109.5 degrees apart, and no further (a regular simplex).
    """
    unit = np.asarray(prototypes, dtype=float)
    cosine = unit @ unit.T - 3 * np.eye(len(unit))  # a class is not its own neighbour
    return np.degrees(np.arccos(cosine.max(1).clip(-1, 1)))


def centroid_angles(unit: np.ndarray, label: np.ndarray) -> pd.DataFrame:
    """How compact and how far apart the classes are in the embedding, without a classifier.

    A class's centroid is the direction of the mean of its clips' embeddings.

    Parameters
    ----------
    unit : array [shape=(n, d)]
        Embeddings of unit length.
    label : array [shape=(n,)]
        0..3.

    Returns
    -------
    DataFrame
        Per class that occurs: class, n, target (mean angle of its clips to their centroid), between (its centroid's
        angle to the nearest other one; NaN where there is none), both in degrees.
    """
    present, row = np.unique(label, return_inverse=True)
    means = np.stack([unit[label == k].mean(0) for k in present]).astype(float)
    centroids = means / np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
    theta = pd.Series(np.degrees(np.arccos((unit * centroids[row]).sum(1).clip(-1, 1)))).groupby(row)
    between = prototype_angles(centroids) if len(present) > 1 else np.nan
    names = [CLASSES[k] for k in present]
    return pd.DataFrame({"class": names, "n": theta.size(), "target": theta.mean(), "between": between})
