"""Scores of the training clips -> threshold, verdict, place among them."""

import logging
from collections.abc import Iterable

import numpy as np

from config import Config
from training.model_records import TrainingScores

METHODS = ("gamma", "empirical")
MIN_FITTED = 10  # scores; the distribution has three parameters, and its fit to fewer is a matter of chance
DEVIATIONS = 3  # by which the share of scores above a fitted threshold may differ from what was asked for

logger = logging.getLogger(__name__)


def threshold(scores: np.ndarray, *, quantile: float, method: str) -> float:
    """Score above which a clip is called anomalous.

    Parameters
    ----------
    scores : ndarray, shape (n_clips,), of normal clips that the system has been trained on; any sign and scale
    quantile : float in (0, 1), share of normal clips that are to stay at the threshold or below
    method : ``gamma``: the quantile of a gamma distribution fitted to the scores; ``empirical``: theirs, interpolated
        linearly between neighbours

    Raises
    ------
    ValueError : if there are no scores, one is not finite, or ``method`` or ``quantile`` is not as above.

    Notes
    -----
    The official baselines since 2021: ``scipy.stats.gamma`` with shape, location and scale fitted by maximum
    likelihood, its quantile 0.9, and ``score > threshold`` is anomalous. The location makes negative scores possible.
    The likelihood of this distribution has no upper bound, and its fit at times ends far from the scores: there, and
    for fewer than ten scores or equal ones, the empirical quantile takes its place. Far means that the share of scores
    above the threshold differs from ``1 - quantile`` by more than three standard deviations of such a share.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores of at least one clip, got an array of shape {scores.shape}")
    if not 0 < quantile < 1 or method not in METHODS:
        raise ValueError(f"quantile {quantile}, method {method!r}; expected one in (0, 1) and one of {METHODS}")
    empirical = float(np.quantile(scores, quantile))
    if method == "empirical" or len(scores) < MIN_FITTED or np.ptp(scores) <= 1e-9 * np.abs(scores).max():
        return empirical
    fitted = _gamma_quantile(scores, quantile)
    error = abs(np.mean(scores > fitted) - (1 - quantile))
    if np.isfinite(fitted) and error <= DEVIATIONS * np.sqrt(quantile * (1 - quantile) / len(scores)):
        return fitted
    logger.debug("a gamma distribution does not fit %d scores: threshold %g, not %g", len(scores), empirical, fitted)
    return empirical


def _gamma_quantile(scores: np.ndarray, quantile: float) -> float:
    """Quantile of the gamma distribution fitted to the scores, NaN where the fit fails."""
    import scipy.stats

    try:
        with np.errstate(all="ignore"):
            shape, location, scale = scipy.stats.gamma.fit(scores)
            return float(scipy.stats.gamma.ppf(quantile, shape, loc=location, scale=scale))
    except (scipy.stats.FitError, ValueError, ArithmeticError):
        return float("nan")


def thresholds(
    scores: np.ndarray, machine_ids: np.ndarray, *, quantile: float, method: str, wanted: Iterable[str] | None = None
) -> dict[str, float]:
    """Machine ID -> threshold from the scores of its training clips.

    Parameters
    ----------
    scores, machine_ids : ndarray, shape (n_clips,), of the training clips of a machine type
    quantile, method : as of :func:`threshold`
    wanted : machine IDs, of which one without training clips of its own has the threshold of all clips; None: those
        that have training clips
    """
    known = np.unique(machine_ids).tolist()
    return {
        machine_id: threshold(
            scores[machine_ids == machine_id] if machine_id in known else scores, quantile=quantile, method=method
        )
        for machine_id in sorted(known if wanted is None else wanted)
    }


def of_training(trained: TrainingScores, config: Config, wanted: Iterable[str] | None = None) -> dict[str, float]:
    """Machine ID -> threshold by the YAML, from the scores of the training clips; ``wanted`` as above."""
    return thresholds(
        trained.scores,
        trained.machine_ids,
        quantile=config.decision_quantile,
        method=config.decision,
        wanted=wanted,
    )


def is_anomalous(scores: np.ndarray, threshold: float) -> np.ndarray:
    """True where a score is above the threshold; a score that equals it is normal, as in the official baselines."""
    return np.asarray(scores) > threshold


def percentile(score: float, training_scores: np.ndarray) -> float:
    """Share of the training clips whose scores are not above ``score`` [%]."""
    return 100.0 * float(np.mean(np.asarray(training_scores) <= score))
