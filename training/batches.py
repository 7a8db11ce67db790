"""Rows of many clips through a network in calls of one size."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np


def filled_batches(per_clip: Iterable[np.ndarray], size: int, counts: list[int]) -> Iterator[np.ndarray]:
    """Batches of ``size`` rows, clip after clip; the last is filled up with zeros, so that a network is traced once.

    Parameters
    ----------
    per_clip : rows of each clip, shape (n, ...)
    counts : gets the number of each clip's rows
    """
    waiting: list[np.ndarray] = []
    n_waiting = 0
    for rows in per_clip:
        counts.append(len(rows))
        waiting.append(rows)
        n_waiting += len(rows)
        while n_waiting >= size:
            together = np.concatenate(waiting)
            yield together[:size]
            waiting, n_waiting = [together[size:]], n_waiting - size
    if n_waiting:
        together = np.concatenate(waiting)
        yield np.pad(together, ((0, size - n_waiting), *[(0, 0)] * (together.ndim - 1)))


def pieces(counts: Sequence[int], start: int, size: int) -> Iterator[tuple[int, slice]]:
    """Clips that have some of the ``size`` rows from ``start`` on, and which of these; ``counts`` as above."""
    ends = np.cumsum(counts) - start
    firsts = ends - counts
    for clip in np.flatnonzero((ends > 0) & (firsts < size)):
        yield int(clip), slice(max(0, firsts[clip]), min(size, ends[clip]))
