"""How far the AUC and pAUC of two systems differ by chance: bootstrap over the test clips."""

import numpy as np

CONFIDENCE = 0.95
DECIMALS = 12  # of an average or a difference; further ones are rounding errors
ROWS_AT_ONCE = 100  # of bootstrap samples; bounds the memory to some MB


def resampled_areas(
    labels: np.ndarray, scores: np.ndarray, counts: np.ndarray, *, max_fpr: float
) -> tuple[np.ndarray, np.ndarray]:
    """AUC and pAUC of many bootstrap samples of the clips at once.

    Parameters
    ----------
    labels, scores : shape (n_clips,)
    counts : shape (n_samples, n_clips), how often a sample has a clip; at least one clip of each label

    Returns
    -------
    ndarray, ndarray : shape (n_samples,) each; equal to ``auc_pauc`` of the samples

    Notes
    -----
    pAUC: McClish, Med. Decis. Making 9 (1989), as scikit-learn's ``roc_auc_score(max_fpr=...)``.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))

    def rates(label: int) -> np.ndarray:  # of the label's clips above each threshold: (n_samples, 1 + n_thresholds)
        above = np.cumsum(counts[:, order] * (labels[order] == label), axis=1)[:, last_of_tie]
        return np.pad(above / above[:, -1:], ((0, 0), (1, 0)))

    fpr, tpr = rates(0), rates(1)
    left, low = fpr[:, :-1], tpr[:, :-1]
    width, rise = np.diff(fpr), np.diff(tpr)
    auc = np.sum(width * (low + rise / 2), axis=1)
    # The part of each trapezoid left of max_fpr, whose upper edge is cut where the line reaches max_fpr.
    inside = np.clip(max_fpr - left, 0, width)
    slope = np.divide(rise, width, out=np.zeros_like(rise), where=width > 0)
    partial = np.sum(inside * (low + slope * inside / 2), axis=1)
    chance = max_fpr**2 / 2
    return auc, (1 + (partial - chance) / (max_fpr - chance)) / 2


def bootstrap_differences(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    *,
    max_fpr: float,
    replicates: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """AUC and pAUC of a minus those of b on bootstrap samples of the clips, shape (replicates, 2).

    Normal and anomalous clips are drawn apart, so that every sample has as many of each (stratified), and both systems
    are judged on the same samples (paired).
    """
    differences = []
    for start in range(0, replicates, ROWS_AT_ONCE):
        n_samples = min(ROWS_AT_ONCE, replicates - start)
        counts = np.zeros((n_samples, len(labels)), np.int32)  # 0 of clips whose label is not known
        for label in (0, 1):
            clips = np.flatnonzero(labels == label)
            drawn = rng.integers(len(clips), size=(n_samples, len(clips)))
            drawn += len(clips) * np.arange(n_samples)[:, None]
            counts[:, clips] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        areas_a = resampled_areas(labels, scores_a, counts, max_fpr=max_fpr)
        areas_b = resampled_areas(labels, scores_b, counts, max_fpr=max_fpr)
        differences.append(np.subtract(areas_a, areas_b).T)
    return np.concatenate(differences)


def interval(differences: np.ndarray) -> np.ndarray:
    """Percentile interval of bootstrap differences, (replicates, 2) -> (2, 2); an end that is 0 is so to the bit."""
    tail = (1 - CONFIDENCE) / 2
    return np.round(np.quantile(differences, [tail, 1 - tail], axis=0), DECIMALS) + 0.0
