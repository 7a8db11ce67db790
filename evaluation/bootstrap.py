"""How far the AUC and pAUC of two systems differ by chance: bootstrap over the test clips."""

import numpy as np

from evaluation.rules import IDS, Rule

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


def bootstrap_figures(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    *,
    max_fpr: float,
    replicates: int,
    rng: np.random.Generator,
    rule: Rule = IDS,
    domains: np.ndarray | None = None,
) -> np.ndarray:
    """Figures of a and of b on bootstrap samples of the clips, shape (2, replicates, n_columns).

    Normal and anomalous clips are drawn apart, and those of each domain, so that every sample has as many of each
    (stratified), and both systems are judged on the same samples (paired).
    """
    kinds = labels if domains is None else np.where(labels < 0, -1, labels + 2 * (domains + 1))
    found = []
    for start in range(0, replicates, ROWS_AT_ONCE):
        n_samples = min(ROWS_AT_ONCE, replicates - start)
        counts = np.zeros((n_samples, len(labels)), np.int32)  # 0 of clips whose label is not known
        for kind in np.unique(kinds[labels >= 0]):
            clips = np.flatnonzero(kinds == kind)
            drawn = rng.integers(len(clips), size=(n_samples, len(clips)))
            drawn += len(clips) * np.arange(n_samples)[:, None]
            counts[:, clips] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        sides = [_figures(rule, labels, scores, domains, counts, max_fpr) for scores in (scores_a, scores_b)]
        found.append(np.stack(sides).transpose(0, 2, 1))
    return np.concatenate(found, axis=1)


def _figures(
    rule: Rule, labels: np.ndarray, scores: np.ndarray, domains: np.ndarray | None, counts: np.ndarray, max_fpr: float
) -> list[np.ndarray]:
    """Each of the rule's figures of bootstrap samples, shape (n_columns, n_samples)."""
    areas, found = {}, []
    for column in rule.columns:
        chosen = column.clips(labels, domains)
        if len(np.unique(labels[chosen & (labels >= 0)])) < 2:
            found.append(np.full(len(counts), np.nan))
            continue
        if column.domain not in areas:
            of_domain = labels[chosen], scores[chosen], counts[:, chosen]
            areas[column.domain] = resampled_areas(*of_domain, max_fpr=max_fpr)
        found.append(areas[column.domain][column.partial])
    return found


def interval(differences: np.ndarray) -> np.ndarray:
    """Percentile interval of bootstrap differences, (replicates, n) -> (2, n); an end that is 0 is so to the bit."""
    tail = (1 - CONFIDENCE) / 2
    return np.round(np.quantile(differences, [tail, 1 - tail], axis=0), DECIMALS) + 0.0
