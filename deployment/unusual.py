"""What is most unusual of a recording, in words: the two or three ranges of frequency that weigh most, and in what."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deployment.detection import Verdict
from training.deviation import Deviation

MOST_RANGES = 3
LEAST = 1 / 3  # of the largest weight of a band: bands with less are in no range
ONE_ASPECT = 1.5  # times the mean weight of all aspects: one that weighs so much is named


class Range(NamedTuple):
    """Bands side by side that are unusual."""

    low: float  # [Hz]
    high: float
    aspect: str  # a modulation such as "12 Hz", level, unrest; empty: none stands out

    def words(self) -> str:
        """``1.7 to 1.9 kHz, modulated at about 11 Hz``; the edges rounded away from each other."""
        step, unit, scale = (100, "kHz", 1000) if self.high >= 1000 else (10, "Hz", 1)
        low, high = math.floor(max(self.low, 0) / step) * step, math.ceil(self.high / step) * step
        said = f"{low / scale:g} to {high / scale:g} {unit}"
        if not self.aspect:
            return said
        return f"{said}, {'modulated at about' if self.aspect.endswith('Hz') else 'in'} {self.aspect}"


def worst(verdicts: Sequence[Verdict], found: Sequence[Deviation]) -> int:
    """Number of the window of which one speaks: that with the highest score, where that is an anomaly.

    Where none is, that with the largest weight of a band: weak faults of a few bands are lost in the sum over all.
    """
    if any(verdict.verdict == "anomaly" for verdict in verdicts):
        return int(np.argmax([verdict.score for verdict in verdicts]))
    return int(np.argmax([deviation.by_band().max() for deviation in found]))


def words(verdicts: Sequence[Verdict], found: Sequence[Deviation]) -> str:
    """What is most unusual of the :func:`worst` window, in a line."""
    if not found:
        return "most unusual: this system's scores cannot be traced to frequencies"
    number = worst(verdicts, found)
    verdict, deviation = verdicts[number], found[number]
    when = f", {verdict.start:.2f} to {verdict.start + verdict.duration:.2f} s" if len(verdicts) > 1 else ""
    note = f" ({deviation.note})" if deviation.note else ""
    said = "; ".join(one.words() for one in ranges(deviation)) or "no band more than in the training clips"
    return f"most unusual{when}{note}: {said}"


def ranges(deviation: Deviation) -> list[Range]:
    """The ranges that weigh most, the first most; none where no band weighs more than in the training clips."""
    weights = deviation.by_band()
    if weights.max() <= 0:
        return []
    inside = np.concatenate([[False], weights >= LEAST * weights.max(), [False]])
    starts, ends = np.flatnonzero(np.diff(inside.astype(int))).reshape(-1, 2).T
    heaviest = sorted(zip(starts, ends, strict=True), key=lambda ends: -weights[slice(*ends)].sum())[:MOST_RANGES]
    edges = deviation.edges.tolist()
    return [Range(edges[start], edges[end], _aspect(deviation, slice(start, end))) for start, end in heaviest]


def _aspect(deviation: Deviation, inside: slice) -> str:
    """The aspect that weighs most in these bands, where it weighs clearly more than the others."""
    aspects = np.unique(deviation.aspects).tolist()
    weights = {aspect: deviation.by_band(aspect)[inside].sum() for aspect in aspects}
    heaviest = max(aspects, key=weights.get)
    return heaviest if weights[heaviest] >= ONE_ASPECT * np.mean([*weights.values()]) else ""
