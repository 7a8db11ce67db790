"""The autoencoders: build, train, score, load.

The official network and the report's differ in the widths of their layers alone.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras import layers

import features
import training
from common import Clip, UserError, fault_list, stack_frames
from config import DenseAutoencoder, Feature, OfficialModel, System

SCORING_BATCH = 8192  # vectors in one call of the model
OFFICIAL_LAYERS = {"InputLayer", "Dense", "BatchNormalization", "Activation"}

logger = logging.getLogger(__name__)


def build(model: DenseAutoencoder, input_size: int) -> keras.Model:
    """Dense autoencoder of the official baseline (keras_model.get_model) and of the report's table (section 2).

    Parameters
    ----------
    input_size : int, n_mels * frames

    Returns
    -------
    keras.Model : (n, input_size) -> (n, input_size)
    """
    inputs = h = layers.Input(shape=(input_size,))
    for units in model.units:
        h = layers.Dense(units)(h)
        h = layers.BatchNormalization()(h)
        h = layers.Activation("relu")(h)
    return keras.Model(inputs, layers.Dense(input_size, dtype="float32")(h))


class WindowTrainer(keras.Model):
    """Trains an autoencoder on windows that are cut out of the log-mel frames batch by batch.

    The frames are on the device once, in float32; ``fit`` is given indices of windows. The vectors of a training set,
    five times the size of its frames, are never held. One trainer serves all machine types of a system, so that the
    training step is traced and compiled once.
    """

    def __init__(self, autoencoder: keras.Model, feature: Feature):
        super().__init__()
        self.autoencoder = autoencoder
        self.frames, self.n_mels = feature.frames, feature.n_mels
        self.log_mel = tf.Variable(tf.zeros((0, self.n_mels)), shape=(None, self.n_mels), trainable=False)
        self.starts = tf.Variable(tf.zeros(0, tf.int32), shape=(None,), trainable=False)
        # Without the gather, whose shapes change with the machine type, the step is compiled once.
        self.fast_train_step = tf.function(super().train_step, jit_compile=training.JIT_COMPILE)
        self.fast_test_step = tf.function(super().test_step, jit_compile=training.JIT_COMPILE)

    def load(self, blocks: Iterable[np.ndarray], offsets: np.ndarray) -> int:
        """Take the log-mel frames of the clips, (n_frames, n_mels) each; the number of windows in them."""
        self.log_mel.assign(tf.zeros((0, self.n_mels)))  # the last machine type's go before these come
        self.log_mel.assign(tf.zeros((int(offsets[-1]), self.n_mels)))
        for start, block in zip(offsets, blocks, strict=False):
            self.log_mel[start : start + len(block)].assign(block)
        starts = features.window_starts(offsets, self.frames)
        self.starts.assign(starts)
        return len(starts)

    def call(self, vectors, training=False):
        """Reconstruct."""
        return self.autoencoder(vectors, training=training)

    def vectors(self, indices: tf.Tensor) -> tf.Tensor:
        """Windows ``indices`` as vectors, shape (n, frames * n_mels), oldest frame first."""
        rows = tf.gather(self.starts, indices)[:, None] + tf.range(self.frames)
        return tf.reshape(tf.gather(self.log_mel, rows), (-1, self.frames * self.n_mels))

    def train_step(self, indices):
        """One step on the windows themselves as input and target."""
        vectors = self.vectors(indices)
        return self.fast_train_step((vectors, vectors))

    def test_step(self, indices):
        """Validation loss of one batch."""
        vectors = self.vectors(indices)
        return self.fast_test_step((vectors, vectors))


def work(system: System, clips: dict[str, list[Clip]]) -> int:
    """Progress steps that ``train`` takes: each clip is read once and seen once an epoch."""
    return sum(map(len, clips.values())) * (1 + system.fit.epochs)


def train(run: training.Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Train one autoencoder per machine type, except where there is one trained on just this.

    Parameters
    ----------
    clips : machine type -> training clips
    """
    trainer = None
    for machine_type, train_clips in clips.items():
        job = training.Job(run, system, machine_type, train_clips)
        if job.is_done():
            continue
        trainer = trainer or make_trainer(system)
        _train_one(job, trainer)
        training.save_model(trainer.autoencoder, job)


def make_trainer(system: System) -> WindowTrainer:
    """Compiled trainer of a system, for any machine type."""
    keras.config.set_dtype_policy(system.fit.precision)
    autoencoder = build(system.model, system.feature.n_mels * system.feature.frames)
    trainer = WindowTrainer(autoencoder, system.feature)
    trainer.compile(training.make_optimizer(system.fit), system.fit.compile.loss, jit_compile=False)
    return trainer


def _train_one(job: training.Job, trainer: WindowTrainer) -> None:
    """Train the autoencoder of one machine type from its start, or from where an interrupted run got to."""
    feature, fit = job.system.feature, job.system.fit
    keras.utils.set_random_seed(job.run.config.seed)
    fresh = build(job.system.model, feature.n_mels * feature.frames)
    trainer.autoencoder.set_weights(fresh.get_weights())
    blocks = job.watch(features.log_mel_clips(job.clips, feature, job.run.cache))
    n_windows = trainer.load(blocks, features.clip_offsets(job.clips, feature))
    # The official split: Keras's validation_split takes the last vectors, before any shuffling.
    n_train = int(np.floor(n_windows * (1 - fit.validation_split)))
    if n_train < 1:
        raise UserError(f"{job.name}: {n_windows} vectors leave none to train on; lower fit.validation_split")
    validation = None
    if n_train < n_windows:
        validation = tf.data.Dataset.range(n_train, n_windows).batch(fit.batch_size)
    training.train(trainer.autoencoder, trainer, job, n_train=n_train, validation=validation)


def require(run: training.Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Raise UserError unless there is a finished model for each machine type, fit for its clips."""
    for machine_type, test_clips in clips.items():
        if isinstance(system.model, OfficialModel):
            load_official(official_path(system, machine_type))
            continue
        training.check_sample_rate(training.require_trained(run, system, machine_type), test_clips)


def anomaly_scores(run: training.Run, system: System, machine_type: str, clips: Sequence[Clip]) -> np.ndarray:
    """Scores of the clips by the machine type's model, shape (n_clips,); see :func:`reconstruction_errors`."""
    if isinstance(system.model, OfficialModel):
        model = load_official(official_path(system, machine_type))
    else:
        model = training.load_model(training.model_path(run.model_folder(system), machine_type))
    return score_clips(model, run, system.feature, clips)


def score_clips(model: keras.Model, run: training.Run, feature: Feature, clips: Sequence[Clip]) -> np.ndarray:
    """Reconstruction error of each clip, shape (n_clips,), with the progress shown."""
    if model.input_shape[1:] != (feature.n_mels * feature.frames,):
        raise UserError(
            f"the model takes vectors of {model.input_shape[1:]} values; feature.n_mels * feature.frames gives "
            f"{feature.n_mels * feature.frames}: set these keys to what the model was trained with"
        )

    def watched() -> Iterable[np.ndarray]:
        for block in features.log_mel_clips(clips, feature, run.cache):
            run.progress.update()
            yield block

    scores = reconstruction_errors(model, watched(), frames=feature.frames)
    bad = [f"{clip.path}: {score}" for clip, score in zip(clips, scores, strict=True) if not np.isfinite(score)]
    if bad:
        raise fault_list("Scores that are not finite numbers", bad, "The model is broken: delete it and train anew.")
    return scores


def reconstruction_errors(model: keras.Model, log_mels: Iterable[np.ndarray], *, frames: int) -> np.ndarray:
    """Mean squared reconstruction error of each clip, higher = more anomalous (the official 01_test.py).

    Parameters
    ----------
    log_mels : log-mel energies of each clip [dB], shape (n_frames, n_mels)
    frames : int, frames in one vector

    Returns
    -------
    ndarray, shape (n_clips,), float64

    Notes
    -----
    The vectors of many clips go through the model in one call; the last call is filled up, so that the model is
    compiled once.
    """

    @tf.function
    def vector_errors(vectors: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.square(vectors - model(vectors, training=False)), axis=1)

    errors, counts, waiting, n_waiting = [], [], [], 0

    def flush(last: bool) -> None:
        nonlocal waiting, n_waiting
        vectors = np.concatenate(waiting)
        end = len(vectors) if last else len(vectors) // SCORING_BATCH * SCORING_BATCH
        for start in range(0, end, SCORING_BATCH):
            batch = vectors[start : start + SCORING_BATCH]
            filled = np.pad(batch, ((0, SCORING_BATCH - len(batch)), (0, 0)))
            errors.append(vector_errors(filled).numpy()[: len(batch)])
        waiting, n_waiting = [vectors[end:]], len(vectors) - end

    for log_mel in log_mels:
        waiting.append(stack_frames(log_mel.T, frames=frames))
        counts.append(len(waiting[-1]))
        n_waiting += counts[-1]
        if n_waiting >= SCORING_BATCH:
            flush(last=False)
    if n_waiting:
        flush(last=True)
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    return np.add.reduceat(np.concatenate(errors).astype(np.float64), firsts) / counts


def official_path(system: System, machine_type: str) -> Path:
    """File that the official 00_train.py writes for a machine type."""
    return system.model.directory / f"model_{machine_type}.hdf5"


def load_official(path: Path) -> keras.Model:
    """Autoencoder that the official baseline has trained and saved as HDF5.

    Raises
    ------
    UserError : if there is no such file, or it holds other layers than the official network's.
    """
    if not path.is_file():
        raise UserError(f"--official-model: no file {path}; the official 00_train.py writes model_<machine type>.hdf5")
    try:
        with h5py.File(path) as stored:
            config = json.loads(stored.attrs["model_config"])
        kinds = {layer["class_name"] for layer in config["config"]["layers"]}
        if not kinds <= OFFICIAL_LAYERS:
            raise UserError(f"{path}: has layers {sorted(kinds - OFFICIAL_LAYERS)}; not the official network")
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a model of the official baseline ({error})") from error
