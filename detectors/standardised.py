"""Scores of different detectors and systems in one unit: log scores, standardised by the training clips' own."""

import numpy as np

FLOOR = 1e-3  # of the least training score
ROUNDING = 1e-6  # deviation of log scores that are equal but for rounding


def log_statistics(training_scores: np.ndarray, *, joined: bool = False) -> dict[str, float]:
    """What standardises scores: ``mean`` and ``deviation`` of the log scores of training clips (n_train,).

    With them ``least``, the least score that counts as itself. A score of 0 (a probability of one, an error of zero)
    has no logarithm: no score counts as less than a thousandth of the least training score above 0. Scores that were
    ``joined`` of several are logarithms already, and have no ``least``.
    """
    found, logs = {}, training_scores
    if not joined:
        positive = training_scores[training_scores > 0]
        found["least"] = float(FLOOR * positive.min() if positive.size else np.finfo(np.float64).tiny)
        logs = np.log(np.maximum(training_scores, found["least"]))
    deviation = logs.std()
    return found | {"mean": float(logs.mean()), "deviation": float(deviation if deviation > ROUNDING else 1.0)}


def standardised(scores: np.ndarray, training_scores: np.ndarray, *, joined: bool = False) -> np.ndarray:
    """Log scores in deviations from the mean of the training clips' log scores, shape (n,).

    Parameters
    ----------
    scores, training_scores : ndarray, shape (n,) and (n_train,), of one system and machine ID
    joined : whether they are standardised log scores, of several detectors or systems; others are at least 0
    """
    by = log_statistics(training_scores, joined=joined)
    logs = scores if joined else np.log(np.maximum(scores, by["least"]))
    return (logs - by["mean"]) / by["deviation"]


def standardised_by_id(
    scores: np.ndarray, machine_ids: np.ndarray, own: np.ndarray, own_ids: np.ndarray, *, joined: bool = False
) -> np.ndarray:
    """Standardised log scores, by the training clips' ``own`` of the same machine ID, or of all where it has none."""
    found = np.empty(len(scores))
    for machine_id in np.unique(machine_ids):
        members = machine_ids == machine_id
        of_id = own[own_ids == machine_id]
        found[members] = standardised(scores[members], of_id if of_id.size else own, joined=joined)
    return found
