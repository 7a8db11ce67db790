"""Reconstruction errors of a clip's vectors, and the one number that they become: the scores of the autoencoders."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from audio.clips import Clip
from common import UserError, fault_list, stack_frames
from config import AGGREGATES, OF_ERRORS, OF_RESIDUALS, ConvAutoencoder, System
from storage import records
from training.batches import filled_batches, pieces
from training.model_records import TrainingScores
from training.residuals import inverse_covariances, mahalanobis, mean_squares, moments_of

SCORING_BATCH = 1024  # vectors in one call of the model: three clips of 10 s; one clip alone takes the time of a call
SCORING_PATCHES = 256  # the same for a ConvAutoencoder, whose layers hold up to 16 times the values of its input


def vectors_of(system: System) -> dict[str, int]:
    """How a system's clips are cut into vectors, and how many of these go through the model at once."""
    batch = SCORING_PATCHES if isinstance(system.model, ConvAutoencoder) else SCORING_BATCH
    return {"frames": system.feature.frames, "hop": system.model.hop, "batch": batch}


def check_finite(clips: Sequence[Clip], scores: Iterable[float]) -> None:
    """Raise UserError, naming the clips, unless their scores are numbers."""
    bad = [f"{clip.path}: {score}" for clip, score in zip(clips, scores, strict=True) if not np.isfinite(score)]
    if bad:
        raise fault_list("Scores that are not finite numbers", bad, "The model is broken: delete it and train anew.")


def check_counts(counts: np.ndarray, how: str) -> None:
    """Raise UserError where the deviation is asked for of clips that have one vector."""
    if how == "std" and counts.min() == 1:
        raise UserError(
            f"model.aggregate: std: {np.sum(counts == 1)} clips are so short that they give one vector, which has no "
            "deviation; take another aggregate, or lower feature.frames or model.hop"
        )


def vector_errors(
    model: keras.Model, log_mels: Iterable[np.ndarray], *, frames: int, hop: int, batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared reconstruction error of each vector of each clip.

    Parameters
    ----------
    log_mels : log-mel energies of each clip [dB], shape (n_frames, n_mels)
    frames : int, frames in one vector
    hop : int, frames from one vector to the next
    batch : int, vectors in one call of the model

    Returns
    -------
    errors : ndarray, shape (n_vectors,), float64, clip after clip
    counts : ndarray, shape (n_clips,), vectors of each clip
    """
    counts: list[int] = []
    batches = filled_batches(_vectors(log_mels, frames, hop), batch, counts)
    errors = [error_function(model)(filled)[0].numpy() for filled in batches]
    return np.concatenate(errors)[: sum(counts)].astype(np.float64), np.array(counts)


def errors_and_moments(
    model: keras.Model, log_mels: Iterable[np.ndarray], *, frames: int, hop: int, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same errors clip by clip, (n_vectors,) float64, with the moments of its residuals, frame by frame."""
    counts: list[int] = []
    errors, moments = [], 0.0
    for number, filled in enumerate(filled_batches(_vectors(log_mels, frames, hop), batch, counts)):
        found, residuals = (part.numpy() for part in error_function(model)(filled))
        for clip, rows in pieces(counts, number * batch, batch):
            errors.append(found[rows])
            moments += moments_of(residuals[rows].reshape(-1, filled.shape[1] // frames))
            if sum(map(len, errors)) == counts[clip]:  # the rest of a clip may be in the next batch
                yield np.concatenate(errors).astype(np.float64), moments
                errors, moments = [], 0.0


def _vectors(log_mels: Iterable[np.ndarray], frames: int, hop: int) -> Iterator[np.ndarray]:
    return (np.ascontiguousarray(stack_frames(log_mel.T, frames=frames)[::hop]) for log_mel in log_mels)


@functools.lru_cache(maxsize=4)  # in training, one network is that of every machine type
def error_function(model: keras.Model) -> Callable[[np.ndarray], tuple[tf.Tensor, tf.Tensor]]:
    """Vectors (n, size) -> mean squared errors (n,), residuals (n, size), as TensorFlow compiles it once."""

    @tf.function
    def errors_of(vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        residuals = vectors - model(vectors, training=False)
        return tf.reduce_mean(tf.square(residuals), axis=1), residuals

    return errors_of


def errors_by_band(
    model: keras.Model, log_mels: Iterable[np.ndarray], *, frames: int, hop: int, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Squared errors of each clip: of each frame and band, (n_frames, n_mels), and of each band, (n_mels,).

    Those of a frame are the mean over the vectors that hold it, NaN where none does; those of a band over all vectors.
    """
    for log_mel in log_mels:
        (vectors,) = _vectors([log_mel], frames, hop)
        pieces = np.split(vectors, range(batch, len(vectors), batch))
        residuals = np.concatenate([error_function(model)(piece)[1].numpy() for piece in pieces])
        squares = np.square(residuals).reshape(len(vectors), frames, -1)  # (n_vectors, frames, n_mels)
        sums, counts = np.zeros(log_mel.shape), np.zeros((len(log_mel), 1))
        for place in range(frames):
            held = slice(place, place + hop * (len(vectors) - 1) + 1, hop)
            sums[held] += squares[:, place]
            counts[held] += 1
        yield np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0), squares.mean(axis=(0, 1))


def aggregated(errors: np.ndarray, counts: np.ndarray, how: str) -> np.ndarray:
    """One number for each clip of the errors of its vectors, shape (n_clips,).

    Parameters
    ----------
    errors, counts : as :func:`vector_errors` returns them
    how : ``mean``, ``median``, ``std`` (that of the vectors, 0 where there is one) or ``max``
    """
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    if how == "max":
        return np.maximum.reduceat(errors, firsts)
    if how == "median":
        return np.array([np.median(one) for one in np.split(errors, firsts[1:])])
    means = np.add.reduceat(errors, firsts) / counts
    if how == "mean":
        return means
    return np.sqrt(np.add.reduceat((errors - np.repeat(means, counts)) ** 2, firsts) / counts)


@dataclass(frozen=True)
class TrainingErrors:
    """Reconstruction errors of the clips that a model was trained on, aggregated in each way."""

    names: np.ndarray  # (n_clips,), text
    machine_ids: np.ndarray  # (n_clips,), text
    checksums: np.ndarray  # (n_clips,), of the clips' files
    counts: np.ndarray  # (n_clips,), vectors of each clip
    held_out: np.ndarray  # (n_clips,), 1 where all vectors of a clip are of the validation split, else 0
    inverse_covariances: np.ndarray  # (n_domains, n_mels, n_mels), of the residuals of all of them, frame by frame
    band_errors: np.ndarray  # (n_mels,), mean squared residual of each band
    errors: dict[str, np.ndarray]  # aggregate -> (n_clips,), float64

    KINDS: ClassVar[dict] = {
        "names": ("U", 1),
        "machine_ids": ("U", 1),
        "checksums": ("i", 1),
        "counts": ("i", 1),
        "held_out": ("i", 1),
        "inverse_covariances": ("f", 3),
        "band_errors": ("f", 1),
    }

    @classmethod
    def of(
        cls,
        model: keras.Model,
        system: System,
        clips: Sequence[Clip],
        log_mels: Iterable[np.ndarray],
        held_out: np.ndarray | None = None,
    ) -> "TrainingErrors":
        """Errors of ``clips``, whose log-mel energies [dB] are ``log_mels``, shape (n_frames, n_mels) each."""
        errors, moments = zip(*errors_and_moments(model, log_mels, **vectors_of(system)), strict=True)
        errors, counts = np.concatenate(errors), np.array([len(of_clip) for of_clip in errors])
        by_aggregate = {how: aggregated(errors, counts, how) for how in OF_ERRORS}
        check_finite(clips, by_aggregate["mean"])
        inverses = inverse_covariances(moments, clips)
        by_aggregate |= {how: np.array([mahalanobis(one, inverses, how) for one in moments]) for how in OF_RESIDUALS}
        return cls(
            np.array([clip.name for clip in clips]),
            np.array([clip.machine_id for clip in clips]),
            np.array([clip.crc for clip in clips]),
            counts,
            np.zeros(len(clips), int) if held_out is None else held_out.astype(int),
            inverses,
            mean_squares(sum(moments)),
            by_aggregate,
        )

    def save(self, path: Path) -> None:
        """Write as npz, without pickles."""
        np.savez(path, **{name: getattr(self, name) for name in self.KINDS}, **self.errors)

    @classmethod
    def read(cls, path: Path) -> "TrainingErrors":
        """What :meth:`save` has written."""
        stored = records.read_arrays(path, cls.KINDS | dict.fromkeys(AGGREGATES, ("f", 1)))
        return cls(*(stored.pop(name) for name in cls.KINDS), stored)

    def scores(self, aggregate: str) -> TrainingScores:
        """Those of one way of aggregating, of the clips trained on as they would be of new ones."""
        check_counts(self.counts, aggregate)
        unit = "distance" if aggregate in OF_RESIDUALS else "error"
        return dataclasses.replace(self.as_scores(self.errors[aggregate]), unit=unit)

    def of_bands(self) -> np.ndarray:
        """Mean squared error of each band, (n_mels,), of the clips trained on as it would be of new ones."""
        gap = self.as_scores(self.errors["mean"]).scores.mean() / self.errors["mean"].mean()
        return self.band_errors * gap

    def as_scores(self, errors: np.ndarray) -> TrainingScores:
        """Errors of the clips, (n_clips,), as scores that they would have as new ones."""
        scores = corrected(errors, self.machine_ids, self.held_out > 0)
        return TrainingScores(tuple(self.names.tolist()), self.machine_ids, scores, self.checksums)


def corrected(errors: np.ndarray, machine_ids: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Errors of which those of clips trained on are enlarged by the ratio that held-out clips have to them.

    The ratio of the geometric means, at least 1, in the machine IDs that have clips of both kinds; 1 where none has.
    """
    positive, gaps = errors > 0, []
    for machine_id in np.unique(machine_ids[held_out]):
        of_id = positive & (machine_ids == machine_id)
        new, known = np.log(errors[of_id & held_out]), np.log(errors[of_id & ~held_out])
        if new.size and known.size:
            gaps.append((new.mean() - known.mean(), new.size))
    gap = np.average([gap for gap, _ in gaps], weights=[n for _, n in gaps]) if gaps else 0.0
    return np.where(held_out, errors, errors * np.exp(max(0.0, gap)))
