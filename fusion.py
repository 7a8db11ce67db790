"""Scores of several systems into one: each standardised by the scores that it gives its own training clips."""

from collections.abc import Sequence

import numpy as np

SMALLEST = 1e-30  # of a score whose logarithm is taken: a probability of one has the score zero


def standardised(scores: np.ndarray, training_scores: np.ndarray) -> np.ndarray:
    """Logarithms of scores in deviations from the mean logarithm of the training clips, shape (n_clips,), float64.

    Parameters
    ----------
    scores : ndarray, shape (n_clips,), not negative
    training_scores : ndarray, shape (n_train,), of the same machine ID, from the same system
    """
    training_logs = np.log(np.maximum(training_scores, SMALLEST, dtype=np.float64))
    deviation = training_logs.std() or 1.0  # equal scores alone say nothing about a deviation
    return (np.log(np.maximum(scores, SMALLEST, dtype=np.float64)) - training_logs.mean()) / deviation


def fused(
    scores: Sequence[np.ndarray], training_scores: Sequence[np.ndarray], *, weights: Sequence[float]
) -> np.ndarray:
    """Weighted sum over the systems of their :func:`standardised` scores, shape (n_clips,), float64.

    Parameters
    ----------
    scores : of each system, (n_clips,)
    training_scores : of each system, (n_train,)
    """
    members = zip(scores, training_scores, weights, strict=True)
    return sum(weight * standardised(own, training) for own, training, weight in members)
