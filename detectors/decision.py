"""Scores of the training clips -> threshold, verdict, place among them."""

import logging
from collections.abc import Iterable

import numpy as np

from config import Config
from training.model_records import TrainingScores

METHODS = ("gamma", "empirical")
MIN_FITTED = 20  # scores; the distribution has three parameters, and its fit to fewer is a matter of chance
DEVIATIONS = 0.5  # of the number of scores below a quantile, by which a fitted threshold may be away among the scores
DECIMALS = 9  # of standardised scores
CONFIDENCE = (0.05, 0.95)  # shares of thresholds with fewer false alarms than the least and the most to be expected

logger = logging.getLogger(__name__)


def threshold(scores: np.ndarray, *, quantile: float, method: str) -> float:
    """Score above which a clip is called anomalous.

    Parameters
    ----------
    scores : ndarray, shape (n_clips,), of normal clips that the system has been trained on; any sign and scale
    quantile : float in (0, 1), share of normal clips that are to stay at the threshold or below
    method : ``gamma``: the quantile of a gamma distribution fitted to the scores; ``empirical``: their own, see below

    Raises
    ------
    ValueError : if there are no scores, one is not finite, or ``method`` or ``quantile`` is not as above.

    Notes
    -----
    Empirical: the score of rank ``(n + 1) * quantile``, interpolated linearly between neighbours, at most the largest.
    Of new clips whose scores come from where these n do, ``1 - quantile`` are above it in the mean, whatever the
    distribution, from ``quantile / (1 - quantile)`` scores on (the order statistic of conformal prediction; Vovk,
    Gammerman and Shafer, Algorithmic Learning in a Random World, 2005). NumPy's default has 17 % above where 10 are
    asked for with ten scores, 13 with thirty.

    Gamma: the official baselines since 2021: ``scipy.stats.gamma`` with shape, location and scale fitted by maximum
    likelihood, its quantile 0.9, and ``score > threshold`` is anomalous; here it is fitted to the scores less their
    mean, over their deviation, since the fit would depend on their unit. The likelihood has no upper bound, and the
    fit at times ends far from the scores: beyond those whose ranks are half a deviation away from the empirical
    quantile's (2.7 points of false alarms with thirty scores), for fewer than twenty scores and for equal ones, the
    empirical quantile takes its place.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores of at least one clip, got an array of shape {scores.shape}")
    if not 0 < quantile < 1 or method not in METHODS:
        raise ValueError(f"quantile {quantile}, method {method!r}; expected one in (0, 1) and one of {METHODS}")
    ranks = _rank(len(scores), quantile) + np.array([0, -1, 1]) * DEVIATIONS * np.sqrt(
        len(scores) * quantile * (1 - quantile)
    )
    empirical, low, high = np.interp(ranks, np.arange(1, len(scores) + 1), np.sort(scores))
    if method == "empirical" or len(scores) < MIN_FITTED or np.ptp(scores) <= 1e-9 * np.abs(scores).max():
        return float(empirical)
    mean, deviation = scores.mean(), scores.std()
    # Rounded, since the search for the maximum may end elsewhere for a difference in the last digit.
    fitted = mean + deviation * _gamma_quantile(np.round((scores - mean) / deviation, DECIMALS), quantile)
    if low <= fitted <= high:
        return float(fitted)
    logger.debug("a gamma distribution does not fit %d scores: threshold %g, not %g", len(scores), empirical, fitted)
    return float(empirical)


def _rank(n: int, quantile: float) -> float:
    """Place among n scores, from 1, below which a new one falls with probability ``quantile``."""
    return min(max((n + 1) * quantile, 1), n)


def expected_false_alarms(n: int, quantile: float) -> tuple[float, float]:
    """Share of new normal clips above the empirical threshold of n scores: 5 and 95 % of such thresholds have less.

    By the distribution of an order statistic, Beta(n + 1 - rank, rank), whatever that of the scores.
    """
    import scipy.stats

    rank = _rank(n, quantile)
    low, high = scipy.stats.beta.ppf(CONFIDENCE, n + 1 - rank, rank)
    return float(low), float(high)


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
