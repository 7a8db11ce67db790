"""Residuals of an autoencoder, frame by frame: how they spread in training, and how unusual those of a clip are.

Of a clip's frames a score takes no more than their moments, which is what is kept of them.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from audio.clips import Clip

FLOOR = 1e-6  # of the mean variance; residuals of fewer frames than bands, or of a constant band, do not vary at all


def moments_of(residuals: np.ndarray) -> np.ndarray:
    """Number, sum and outer products of frames, (n_frames, n_mels) -> (n_mels + 1, n_mels + 1), float64.

    The outer products of the frames with a 1 behind each: those of several pieces add up to those of the whole.
    """
    extended = np.ones((len(residuals), residuals.shape[1] + 1))
    extended[:, :-1] = residuals
    # By TensorFlow's threads, which have just made the residuals: NumPy's would take turns with them.
    return tf.matmul(extended, extended, transpose_a=True).numpy()


def inverse_covariances(moments: Iterable[np.ndarray], clips: Sequence[Clip]) -> np.ndarray:
    """Inverse of the covariance of each domain that clips are of, (1 or 2, n_mels, n_mels), source first.

    Clips without a domain, supplemental ones among them, count as of the source.

    Parameters
    ----------
    moments : of each clip, see :func:`moments_of`
    """
    sums: dict[bool, np.ndarray | float] = {}
    for one, clip in zip(moments, clips, strict=True):
        of_target = clip.domain == "target"
        sums[of_target] = sums.get(of_target, 0.0) + one
    return np.stack([inverse(covariance(sums[of_target])) for of_target in sorted(sums)])


def covariance(moments: np.ndarray) -> np.ndarray:
    """Covariance about the mean, (n_mels, n_mels), over the frames less one."""
    n, total = moments[-1, -1], moments[-1, :-1]
    return (moments[:-1, :-1] - np.outer(total, total) / n) / max(n - 1, 1)


def inverse(covariance: np.ndarray) -> np.ndarray:
    """Inverse of a covariance; variances below FLOOR of their mean are taken for so much.

    A pseudo-inverse would leave out directions that never vary: of few frames, everything would be near.
    """
    variances, directions = np.linalg.eigh(covariance)
    floor = FLOOR * variances.mean() if variances.mean() > 0 else 1.0
    return (directions / np.maximum(variances, floor)) @ directions.T


def mean_squares(moments: np.ndarray) -> np.ndarray:
    """Of each band's residuals, (n_mels,)."""
    return moments.diagonal()[:-1] / moments[-1, -1]


def mahalanobis(moments: np.ndarray, inverses: np.ndarray, how: str) -> float:
    """Score of a clip by the covariances of the training: the smallest by any of them.

    Parameters
    ----------
    moments : of its frames r, see :func:`moments_of`
    inverses : see :func:`inverse_covariances`
    how : ``mahalanobis``: the mean of ``r^T C^-1 r`` over the frames; ``mahalanobis_official``: that of
        ``r_i^T C^-1 r_j`` over all pairs of frames

    Notes
    -----
    The first is the definition of Harada et al. 2023 (First-shot anomaly sound detection for machine condition
    monitoring). The code of the official baselines since 2023 forms the matrix of all products of a clip's frames, and
    averages all of it where the diagonal is meant.
    """
    n, total = moments[-1, -1], moments[-1, :-1]
    products = np.outer(total, total) / n if how == "mahalanobis_official" else moments[:-1, :-1]
    return float((inverses * products).sum(axis=(1, 2)).min() / n)
