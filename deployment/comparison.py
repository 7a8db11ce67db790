"""Scores of the same clips by a trained system and by what was exported of it: how they differ, how much they may."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audio.clips import Clip
from detectors import decision
from evaluation.metrics import auc_pauc

FLOAT_BOUND = 1e-3  # of the spread; float32 differs by some 1e-6
MIXED_BOUND = 5e-2  # the same for a system trained in mixed precision, which is exported in float32
LEAST_SPREAD = 1e-2  # of a score: float32 holds no finer differences than a ten-thousandth of that
INT8_AUC_LOSS = 0.02  # mean over the machine IDs
INT8_CORRELATION = 0.95  # of the scores' ranks
INT8_CHANGED = 0.1  # of the verdicts


@dataclass(frozen=True)
class Comparison:
    """Scores of the same clips before and after."""

    n_clips: int
    largest: float  # difference
    relative: float  # the same in units of the spread, see compare()
    aucs: tuple[float, float] | None  # means over the machine IDs, before and after; None where labels are missing
    correlation: float  # of the ranks
    n_changed: int  # verdicts

    def text(self) -> str:
        """In a line."""
        aucs = "no AUC without labels" if self.aucs is None else "AUC {:.4f} -> {:.4f}".format(*self.aucs)
        return (
            f"{self.n_clips} clips scored again: largest difference {self.largest:.2g} ({self.relative:.2g} of the "
            f"spread), ranks correlate at {self.correlation:.4f}, {aucs}, {self.n_changed} verdicts changed"
        )

    def fault(self, *, int8: bool, precision: str) -> str | None:
        """What is wrong with what was exported, None if nothing is."""
        bound = FLOAT_BOUND if precision == "float32" else MIXED_BOUND
        if not int8:
            return None if self.relative <= bound else f"a score differs by more than {bound:g} of the spread"
        if self.aucs and not self.aucs[0] - self.aucs[1] <= INT8_AUC_LOSS:
            return f"the AUC falls by more than {INT8_AUC_LOSS:g}"
        if not self.correlation >= INT8_CORRELATION:
            return f"the ranks of the scores correlate at less than {INT8_CORRELATION:g}"
        if self.n_changed > max(1, INT8_CHANGED * self.n_clips):
            return f"more than {INT8_CHANGED:.0%} of the verdicts change"
        return None


def compare(
    clips: Sequence[Clip],
    before: tuple[np.ndarray, dict[str, float]],
    after: tuple[np.ndarray, dict[str, float]],
) -> Comparison:
    """What has changed.

    Differences are in units of the spread: the distance between the quartiles of the scores before, or of a score from
    their median where that is larger. Neither one clip far off nor a threshold far off hides a difference.

    Parameters
    ----------
    before, after : scores (n_clips,), and machine ID -> threshold, with one for ``all`` others
    """
    verdicts = [
        decision.is_anomalous(scores, np.array([limits.get(clip.machine_id, limits["all"]) for clip in clips]))
        for scores, limits in (before, after)
    ]
    old, new = before[0], after[0]
    low, middle, high = np.quantile(old, (0.25, 0.5, 0.75))
    spread = np.maximum.reduce([np.full(len(old), high - low), np.abs(old - middle), LEAST_SPREAD * np.abs(old)])
    return Comparison(
        len(clips),
        float(np.abs(new - old).max()),
        float((np.abs(new - old) / np.where(spread > 0, spread, 1)).max()),
        _aucs(clips, old, new),
        _rank_correlation(old, new),
        int(np.sum(verdicts[0] != verdicts[1])),
    )


def _rank_correlation(old: np.ndarray, new: np.ndarray) -> float:
    """Spearman's; equal scores have no ranks that could be lost."""
    import scipy.stats

    if not np.ptp(old) or not np.ptp(new):
        return float(not np.ptp(old))
    return float(scipy.stats.spearmanr(old, new).statistic)


def _aucs(clips: Sequence[Clip], *scores: np.ndarray) -> tuple[float, ...] | None:
    machine_ids, labels = (np.array([getattr(clip, name) for clip in clips]) for name in ("machine_id", "label"))
    of_ids = [machine_ids == name for name in np.unique(machine_ids)]
    if any({*labels[of_id]} != {0, 1} for of_id in of_ids):
        return None
    aucs = [[auc_pauc(labels[i].astype(int), values[i], max_fpr=1)[0] for i in of_ids] for values in scores]
    return tuple(float(np.mean(of_scores)) for of_scores in aucs)
