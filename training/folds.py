"""Which training clips are left out together, to be scored as if they had never been met."""

from collections.abc import Sequence

import numpy as np

from audio.clips import Clip

ALONE = 50  # recordings, up to which each is left out alone
FOLDS = 10  # in which more of them are left out


def folds(recordings: np.ndarray, n_folds: int | None = None) -> np.ndarray:
    """Which training clips are left out together, (n_clips,), numbers from 0; independent of the order of the clips.

    Parameters
    ----------
    recordings : ndarray, shape (n_clips,), checksums: equal ones are of the same recording
    n_folds : None: each recording with its copies alone, or many recordings in ten folds
    """
    found, places = np.unique(recordings, return_inverse=True)
    if n_folds is None and len(found) > ALONE:
        n_folds = FOLDS
    return places.reshape(-1) % (n_folds or len(found))


def fold_of_each(clips: Sequence[Clip], n_folds: int) -> np.ndarray:
    """Which of the folds each clip is in, (n_clips,); each has its part of every machine ID, and copies are in one."""
    machines = np.array([f"{clip.machine_type}/{clip.machine_id}" for clip in clips])
    checksums, found = np.array([clip.crc for clip in clips]), np.empty(len(clips), int)
    for number, name in enumerate(np.unique(machines)):
        members = machines == name
        found[members] = (folds(checksums[members], n_folds) + number) % n_folds
    return found
