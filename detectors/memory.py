"""What an outlier detector remembers of a machine type: one vector of each training clip, by machine ID."""

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from audio.clips import Clip
from common import UserError, fault_list
from config import Detector, System
from detectors import outliers, standardised
from storage.records import read_arrays
from training.folds import folds as folds_of
from training.model_records import JOINED, TrainingScores, checked_file

if typing.TYPE_CHECKING:
    from training.run import Run

UNITS = {"lof": "factor", "knn": "distance", "density": "ratio", "softmax": "surprisal"}  # of one detector's scores


@dataclass(frozen=True, eq=False)
class Memory:
    """Vectors of the training clips of one machine type, and the scores that they give others."""

    names: np.ndarray  # (n_clips,), text
    machine_ids: np.ndarray  # (n_clips,), text
    vectors: np.ndarray  # (n_clips, n_numbers)
    log_probabilities: np.ndarray  # (n_clips,), of each clip's own class; zeros where there are no classes
    checksums: np.ndarray | None = None  # (n_clips,), of the clips' files: equal ones are copies; None: all differ
    folds: np.ndarray | None = None  # (n_clips,), which network of `unheard` was not trained on the clip
    unheard: np.ndarray | None = None  # (n_folds, n_clips, n_numbers), by networks each trained without a fold
    fitted: dict = field(default_factory=dict, init=False, repr=False)  # detectors that were asked for before

    ARRAYS: ClassVar[dict] = {
        "names": ("U", 1),
        "machine_ids": ("U", 1),
        "vectors": ("f", 2),
        "log_probabilities": ("f", 1),
        "checksums": ("i", 1),
        "folds": ("i", 1),
        "unheard": ("f", 3),
    }

    def __post_init__(self):
        """Clips without checksums all differ; without a network, none is trained without some of them."""
        defaults = {
            "checksums": np.arange(len(self.names)),
            "folds": np.zeros(len(self.names), int),
            "unheard": np.empty((0, *self.vectors.shape), np.float32),
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @classmethod
    def of(cls, clips: Sequence[Clip], vectors: np.ndarray, log_probabilities: np.ndarray | None = None, **unheard):
        """Memory of these clips."""
        return cls(
            np.array([clip.name for clip in clips]),
            np.array([clip.machine_id for clip in clips]),
            vectors,
            np.zeros(len(clips), np.float32) if log_probabilities is None else log_probabilities,
            np.array([clip.crc for clip in clips]),
            **unheard,
        )

    def write(self, path: Path) -> None:
        """Write as npz, without pickles."""
        np.savez(path, **{name: getattr(self, name) for name in self.ARRAYS})

    def sharing(self, detector: Detector, machine_ids: np.ndarray) -> np.ndarray:
        """Clips with the same word here share a detector, (n,), text."""
        return machine_ids if detector.lof_per == "machine_id" else np.full(len(machine_ids), "all")

    def group(self, detector: Detector, machine_id: str) -> np.ndarray:
        """Clips with which those of ``machine_id`` are compared, of copies the first; shape (n_clips,), bool."""
        own, wanted = (self.sharing(detector, ids) for ids in (self.machine_ids, np.array([machine_id])))
        members = np.flatnonzero(own == wanted)
        _, first = np.unique(self.checksums[members], return_index=True)
        return np.isin(np.arange(len(own)), members[first])

    def scores(self, detector: Detector, vectors: np.ndarray, machine_ids: Sequence[str]) -> np.ndarray:
        """Outlier scores of other clips, shape (n,), float64; higher = more anomalous.

        Parameters
        ----------
        vectors : ndarray, shape (n, n_numbers)
        machine_ids : of each of them
        """
        machine_ids = np.asarray(machine_ids)
        scores, sharing = np.empty(len(vectors)), self.sharing(detector, machine_ids)
        for name in np.unique(sharing):
            members = sharing == name
            scores[members] = self._scorer(detector, machine_ids[members][0])(vectors[members])
        return scores

    def _scorer(self, detector: Detector, machine_id: str) -> outliers.Scorer:
        """What scores the vectors of a machine ID; it is fitted once, for a stream asks window by window."""
        key = detector, self.sharing(detector, np.array([machine_id]))[0]
        if key not in self.fitted:
            train, scale = self._reference(detector, machine_id)
            score = outliers.fitted(train, **settings(detector))
            self.fitted[key] = lambda vectors: score(scale(vectors))
        return self.fitted[key]

    def excess(self, detector: Detector, vectors: np.ndarray, machine_ids: Sequence[str]) -> np.ndarray:
        """What each number adds to the distance of other clips beyond what it adds in training, (n, n_numbers).

        In deviations of the training clips' distances from the others: a clip's sum is how unusual its distance is. A
        number is one of the space in which distances are taken; decorrelation leaves it near where it was.
        """
        machine_ids = np.asarray(machine_ids)
        found, sharing = np.empty(vectors.shape), self.sharing(detector, machine_ids)
        for name in np.unique(sharing):
            members = sharing == name
            train, scale = self._reference(detector, machine_ids[members][0])
            own = outliers.contributions(train, None, **settings(detector))
            others = outliers.contributions(train, scale(vectors[members]), **settings(detector))
            found[members] = (others - own.mean(axis=0)) / (own.sum(axis=1).std() or 1.0)
        return found

    def own_scores(self, detector: Detector) -> np.ndarray:
        """Scores of the training clips, each as if it had never been met; shape (n_clips,), float64.

        Scaling, decorrelation and detector are those of the other clips, and so is the network where there are those
        that were trained without a fold; copies are left out together. Where the others are no more than the
        neighbours, as many neighbours are taken as can be.
        """
        scores, sharing = np.empty(len(self.vectors)), self.sharing(detector, self.machine_ids)
        for name in np.unique(sharing):
            of_group = np.flatnonzero(sharing == name)
            # A detector takes two others; where folds leave fewer, the one network scores.
            by_others = len(self.unheard) > 0 and np.bincount(self.folds[of_group]).max() <= len(of_group) - 2
            folds = self.folds[of_group] if by_others else folds_of(self.checksums[of_group])
            for fold in np.unique(folds):
                out, rest = of_group[folds == fold], of_group[folds != fold]
                vectors = self.unheard[fold] if by_others else self.vectors
                if len(outliers.distinct(vectors[rest])) < 2:  # a network that tells nothing apart
                    vectors = self.vectors
                n_neighbors = min(detector.n_neighbors, len(outliers.distinct(vectors[rest])) - 1)
                fitted = dataclasses.replace(detector, n_neighbors=max(1, n_neighbors))
                others = dataclasses.replace(self, vectors=vectors).of_clips(rest)
                scores[out] = others.scores(fitted, vectors[out], self.machine_ids[out])
        return scores

    def of_clips(self, clips: np.ndarray) -> "Memory":
        """Memory of some of the clips alone."""
        of_each = {name: getattr(self, name)[clips] for name in self.ARRAYS if name != "unheard"}
        return Memory(**of_each, unheard=self.unheard[:, clips])

    def joint_scores(
        self,
        detector: Detector,
        vectors: np.ndarray,
        machine_ids: Sequence[str],
        *,
        widths: Sequence[int],
        combine: str,
    ) -> np.ndarray:
        """One score by several detectors, each on a part of the vectors, shape (n,), float64.

        In deviations from the mean of the training clips of the same machine ID; that of one alone is as it is.

        Parameters
        ----------
        widths : numbers of each part, one after the other
        combine : ``max`` or ``sum`` of the detectors' standardised log scores
        """
        if len(widths) == 1:
            return self.scores(detector, vectors, machine_ids)
        machine_ids = np.asarray(machine_ids)
        found = []
        owns = own_scores_of_parts(self, detector, tuple(widths))
        for (part, remembered), own in zip(_parts(self, tuple(widths)), owns, strict=True):
            scores = remembered.scores(detector, vectors[:, part], machine_ids)
            found.append(standardised.standardised_by_id(scores, machine_ids, own, self.machine_ids))
        own = self.joined(detector, widths, combine)
        return standardised.standardised_by_id(
            combined(found, combine), machine_ids, own, self.machine_ids, joined=True
        )

    def joint_own_scores(self, detector: Detector, *, widths: Sequence[int], combine: str) -> np.ndarray:
        """:meth:`joint_scores` of the training clips, each as if it had never been met.

        It stays in mean and deviation of the log scores: without it, there would be too few false alarms (2 % in place
        of 6 with ten clips, 7 in place of 8 with twenty), as the others' own scores know it as well.
        """
        if len(widths) == 1:
            return own_scores_of_parts(self, detector, tuple(widths))[0]
        own, ids = self.joined(detector, widths, combine), self.machine_ids
        return standardised.standardised_by_id(own, ids, own, ids, joined=True)

    def joined(self, detector: Detector, widths: Sequence[int], combine: str) -> np.ndarray:
        """Standardised log scores of the training clips by several detectors as one, (n_clips,)."""
        owns, ids = own_scores_of_parts(self, detector, tuple(widths)), self.machine_ids
        return combined([standardised.standardised_by_id(own, ids, own, ids) for own in owns], combine)

    def training_scores(self, scores: np.ndarray, unit: str) -> TrainingScores:
        """These scores as those of the clips that are remembered."""
        return TrainingScores(tuple(self.names.tolist()), self.machine_ids, scores, self.checksums, unit)

    def parts(self, widths: Sequence[int]) -> Iterator[tuple[slice, "Memory"]]:
        """Where each part of the vectors is, and what its detector remembers."""
        for start, width in zip(np.cumsum([0, *widths]), widths, strict=False):
            part = slice(start, start + width)
            yield part, dataclasses.replace(self, vectors=self.vectors[:, part], unheard=self.unheard[:, :, part])

    def _reference(self, detector: Detector, machine_id: str) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Vectors that a machine ID's clips are compared with, as they are compared, and what brings others to it."""
        train = self.vectors[self.group(detector, machine_id)]
        if not detector.STANDARDISED:
            return train, lambda vectors: vectors
        mean, deviation = outliers.standardisation(train)
        matrix = None
        if detector.decorrelation:
            matrix = outliers.decorrelation((train - mean) / deviation, power=detector.decorrelation)

        def scale(vectors: np.ndarray) -> np.ndarray:
            scaled = (vectors - mean) / deviation
            return scaled if matrix is None else scaled @ matrix

        return scale(train), scale

    def faults(self, detector: Detector, machine_ids: Sequence[str]) -> list[str]:
        """Why clips of these machine IDs cannot be scored, one line each."""
        faults = []
        for machine_id in sorted(set(machine_ids)):
            n_clips = int(self.group(detector, machine_id).sum())
            if n_clips == 0:
                faults.append(f"{machine_id}: no training clips")
            elif n_clips <= detector.n_neighbors:
                faults.append(f"{machine_id}: {n_clips} training clips, no more than model.n_neighbors")
        return faults


def require_scorable(system: System, faults: Sequence[str]) -> None:
    """Raise UserError with what :meth:`Memory.faults` has found for all machine types, if anything."""
    if faults:
        raise fault_list(
            f"{system.name}: test clips that cannot be scored",
            faults,
            "Train on clips of these machines, lower model.n_neighbors, or set model.lof_per: machine_type",
        )


@functools.lru_cache(maxsize=16)
def own_scores_of_parts(remembered: Memory, detector: Detector, widths: tuple[int, ...]) -> list[np.ndarray]:
    """Scores of the training clips by the detector of each part; a run asks for them several times."""
    if len(widths) == 1:
        return [remembered.own_scores(detector)]
    return [of_part.own_scores(detector) for _, of_part in remembered.parts(widths)]


@functools.lru_cache(maxsize=16)
def _parts(remembered: Memory, widths: tuple[int, ...]) -> list[tuple[slice, Memory]]:
    """The same parts each time, which keep what was fitted to them."""
    return [*remembered.parts(widths)]


def combined(standardised: Sequence[np.ndarray], rule: str) -> np.ndarray:
    """One score of several standardised log scores, shape (n,).

    Parameters
    ----------
    standardised : of each detector, (n,)
    rule : ``max`` or ``sum``
    """
    return np.max(standardised, axis=0) if rule == "max" else np.mean(standardised, axis=0)


def score_unit(detector: Detector, *, widths: Sequence[int], **_) -> str:
    """In what the scores are that a detector gives, or one for each of ``widths``."""
    return JOINED if len(widths) > 1 and detector.score != "softmax" else UNITS[detector.score]


def settings(detector: Detector) -> dict:
    """Arguments of :func:`outliers.fitted`."""
    return {
        "score": detector.score,
        "n_neighbors": detector.n_neighbors,
        "n_nearest": detector.n_nearest,
        "metric": detector.metric,
    }


def file_name(kind: str, machine_type: str) -> str:
    """Name of the file in the model folder; ``kind`` is ``embeddings`` or ``descriptors``."""
    return f"{kind}_{machine_type}.npz"


def load(run: "Run", system: System, record_name: str, kind: str, machine_type: str) -> Memory:
    """What :meth:`Memory.write` has written.

    Parameters
    ----------
    record_name : of the record that the file belongs to: the machine type, or the classifier's

    Raises
    ------
    UserError : if the system was trained without clips of ``machine_type``, or the file is not as it was written.
    """
    folder, name = run.model_folder(system), file_name(kind, machine_type)
    record = run.require_trained(system, record_name)
    if name not in record["files"]:
        raise UserError(
            f"{folder / name}: missing; {system.name} was trained without clips of {machine_type}. Train it on all "
            "machine types that are to be scored, or name others with --machine-type"
        )
    return _read(checked_file(folder, record, name), record["files"][name])


@functools.lru_cache(maxsize=16)
def _read(path: Path, digest: str) -> Memory:
    """Memory of a file whose SHA-256 has been found to be ``digest``."""
    return Memory(**read_arrays(path, Memory.ARRAYS))
