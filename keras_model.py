"""The autoencoders: build, train, score, load.

The official network and the report's differ in the widths of their layers alone. The variational and the convolutional
autoencoder map vectors to vectors like these, so that all are trained and score clips in the same way.
"""

import itertools
import json
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras import layers

from audio import features
from audio.bands import mel_edges
from audio.clips import Clip
from audio.settings import Feature
from common import UserError
from config import OF_RESIDUALS, ConvAutoencoder, DenseAutoencoder, System, VariationalAutoencoder
from detectors import decision
from storage.records import record_path
from training import distribution
from training.deviation import Deviation
from training.families import OfficialModel, Part
from training.fit import fit_job
from training.model_records import TrainingScores, check_sample_rate, scores_path
from training.models import load_finished, save_model
from training.optimizers import make_optimizer
from training.residuals import inverse_covariances, mahalanobis
from training.run import Job, Run
from training.vector_errors import (
    TrainingErrors,
    aggregated,
    check_counts,
    check_finite,
    errors_and_moments,
    errors_by_band,
    vector_errors,
    vectors_of,
)
from training.window_trainer import DENSE_LAYERS, DistributedTrainer, WindowTrainer
from training.workload import passes

STEPS_PER_CALL = 16  # training steps that TensorFlow takes before it is Keras's turn again, which costs a millisecond

logger = logging.getLogger(__name__)


def build(
    model: DenseAutoencoder | VariationalAutoencoder | ConvAutoencoder, feature: Feature
) -> keras.Model:  # (n, n_mels * frames) -> (n, n_mels * frames)
    """Untrained autoencoder of a system."""
    if isinstance(model, VariationalAutoencoder):
        return variational_autoencoder(model, feature.n_mels * feature.frames)
    if isinstance(model, ConvAutoencoder):
        return conv_autoencoder(model, feature)
    return dense_autoencoder(model, feature.n_mels * feature.frames)


def dense_autoencoder(model: DenseAutoencoder, input_size: int) -> keras.Model:
    """Dense autoencoder of the official baseline (keras_model.get_model) and of the report's table (section 2).

    Parameters
    ----------
    input_size : int, n_mels * frames

    Returns
    -------
    keras.Model : (n, input_size) -> (n, input_size)
    """
    inputs = layers.Input(shape=(input_size,))
    return keras.Model(inputs, layers.Dense(input_size, dtype="float32")(_dense(inputs, model.units)))


def _dense(h: keras.KerasTensor, widths: Iterable[int]) -> keras.KerasTensor:
    """Dense + BN + ReLU for each of ``widths``."""
    for units in widths:
        h = layers.Dense(units)(h)
        h = _normalised(h)
    return h


def _normalised(h: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Activation("relu")(layers.BatchNormalization()(h))


def variational_autoencoder(model: VariationalAutoencoder, input_size: int) -> keras.Model:
    """Variational autoencoder of Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014.

    Encoder and decoder are layers as the official baseline's; a Gaussian latent vector takes the place of its
    bottleneck.

    Parameters
    ----------
    input_size : int, n_mels * frames

    Returns
    -------
    keras.Model : (n, input_size) -> (n, input_size), with the divergence as its additional loss

    Notes
    -----
    The bound of Kingma & Welling for a decoder with N(x_hat, variance) is, but for a constant and times -2 * variance,
    ``sum((x - x_hat) ** 2) + 2 * variance * KL``. Keras's mean squared error is the first term over ``input_size``, so
    the second is divided by it as well: ``kl_weight`` is ``2 * variance`` [dB^2] at any size of the input, and 1 gives
    both sums the same weight.

    The score of a clip is that of the other autoencoders, with the mean latent vector in place of a sample: the
    squared error to the decoder's mean. An and Cho (Variational Autoencoder based Anomaly Detection using
    Reconstruction Probability, SNU Data Mining Center, 2015) average over samples; the mean gives one score per clip
    that never changes.
    """
    inputs = layers.Input(shape=(input_size,))
    h = _dense(inputs, model.units)
    mean = layers.Dense(model.latent, dtype="float32", name="z_mean")(h)
    log_variance = layers.Dense(model.latent, dtype="float32", name="z_log_var")(h)
    z = GaussianLatent(model.kl_weight / input_size, dtype="float32")([mean, log_variance])
    return keras.Model(inputs, layers.Dense(input_size, dtype="float32")(_dense(z, reversed(model.units))))


@keras.saving.register_keras_serializable("keras_model")
class GaussianLatent(layers.Layer):
    """Sample of N(mean, exp(log_variance)) in training, the mean otherwise; adds the divergence from N(0, 1).

    Parameters
    ----------
    weight : float, of the divergence, which is summed over the latent values and averaged over the batch
    """

    def __init__(self, weight: float, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight
        # Its state is among the model's variables: a resumed training draws what an unbroken one would have drawn.
        self.noise = keras.random.SeedGenerator()

    def call(self, inputs, training=False):
        """``[mean, log_variance]``, (n, latent) each -> (n, latent)."""
        mean, log_variance = inputs
        self.add_loss(self.weight * keras.ops.mean(divergence(mean, log_variance)))
        if not training:
            return mean
        # Drawn for the whole batch, of which each replica takes its own part, as of the windows.
        replica, n_replicas = distribution.replica()
        n, size = keras.ops.shape(mean)
        noise = keras.random.normal((n * n_replicas, size), dtype=mean.dtype, seed=self.noise)[replica::n_replicas]
        return mean + keras.ops.exp(log_variance / 2) * noise

    def get_config(self):
        """Arguments of the constructor."""
        return {**super().get_config(), "weight": self.weight}


def divergence(mean, log_variance):
    """Kullback-Leibler divergence of N(mean, exp(log_variance)) from N(0, 1), (n, latent) -> (n,).

    Kingma & Welling 2014, appendix B.
    """
    return keras.ops.sum(mean**2 + keras.ops.exp(log_variance) - 1 - log_variance, axis=-1) / 2


def conv_autoencoder(model: ConvAutoencoder, feature: Feature) -> keras.Model:
    """Convolutional autoencoder on log-mel patches.

    Ribeiro, Matos, Pereira, Nunes, Ferreira, Cortez and Pilastri, Deep Dense and Convolutional Autoencoders for
    Unsupervised Anomaly Detection in Machine Condition Sounds, arXiv:2006.10417, 2020: five strided convolutions, a
    dense bottleneck and the same in reverse, for patches of 32 frames x 128 bands. The authors standardise each band
    over the training set before the network, and take the loss there; here the first layer does it and the last one
    undoes it, so that loss and score are in dB as those of the other autoencoders.

    Returns
    -------
    keras.Model : (n, frames * n_mels) -> (n, frames * n_mels)
    """
    inputs = layers.Input(shape=(feature.frames * feature.n_mels,))
    h = layers.Reshape((feature.frames, feature.n_mels), dtype="float32")(inputs)  # dB do not fit into 16 bits
    h = layers.Reshape((feature.frames, feature.n_mels, 1))(BandScale(dtype="float32")(h))
    for filters, (kernel, strides) in zip(model.filters, model.LAYERS, strict=True):
        h = _normalised(layers.Conv2D(filters, kernel, strides, padding="same")(h))
    shape = h.shape[1:]  # (4, 4, 512) for the source's patches
    h = layers.Dense(model.latent)(layers.Flatten()(h))
    h = layers.Reshape(shape)(layers.Dense(math.prod(shape))(h))
    for filters, (kernel, strides) in zip(model.filters[-2::-1], model.LAYERS[:0:-1], strict=True):
        h = _normalised(layers.Conv2DTranspose(filters, kernel, strides, padding="same")(h))
    kernel, strides = model.LAYERS[0]
    h = layers.Conv2DTranspose(1, kernel, strides, padding="same", dtype="float32")(h)
    h = layers.Reshape((feature.frames, feature.n_mels), dtype="float32")(h)
    h = BandScale(inverse=True, dtype="float32")(h)
    return keras.Model(inputs, layers.Reshape(inputs.shape[1:], dtype="float32")(h))


@keras.saving.register_keras_serializable("keras_model")
class BandScale(layers.Layer):
    """Standardise each band of (n, frames, n_mels), or with ``inverse`` bring it back to dB."""

    def __init__(self, *, inverse: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.inverse = inverse

    def build(self, shape):
        """Make room for what ``adapt`` finds."""
        self.mean = self.add_weight(name="mean", shape=shape[-1:], trainable=False)
        self.deviation = self.add_weight(name="deviation", shape=shape[-1:], initializer="ones", trainable=False)

    def adapt(self, log_mel: tf.Tensor) -> None:
        """Take the mean and the deviation of each band, at least 1 dB, over frames (n_frames, n_mels)."""
        self.mean.assign(tf.reduce_mean(log_mel, axis=0))
        self.deviation.assign(tf.maximum(tf.math.reduce_std(log_mel, axis=0), 1.0))

    def call(self, inputs):
        """(n, frames, n_mels) -> (n, frames, n_mels)."""
        return inputs * self.deviation + self.mean if self.inverse else (inputs - self.mean) / self.deviation

    def get_config(self):
        """Arguments of the constructor."""
        return {**super().get_config(), "inverse": self.inverse}


def train(run: Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Train one autoencoder per machine type, except where there is one trained on just this.

    Parameters
    ----------
    clips : machine type -> training clips
    """
    trainer = None
    for machine_type, train_clips in clips.items():
        job = Job(run, system, machine_type, train_clips)
        if job.is_done():
            job.skip(passes(system, len(train_clips)))
            continue
        if trainer is None:
            keras.utils.clear_session()  # layers are numbered from the start: the same file whatever was built before
            with run.strategy.scope():
                trainer = make_trainer(system, run.config.seed)
        distribution.synchronise(trainer.autoencoder, distribution.is_distributed(run.strategy))
        history, errors = _train_one(job, trainer)
        distribution.synchronise(trainer.autoencoder, False)  # the file says nothing of how it was trained
        name = scores_path(job.folder, machine_type).name
        thresholds = {machine_type: decision.of_training(errors.scores(system.model.aggregate), run.config)}
        save_model(trainer.autoencoder, job, history, {name: errors.save}, {"thresholds": thresholds})


def make_trainer(system: System, seed: int) -> WindowTrainer:
    """Compiled trainer of a system, for any machine type."""
    keras.utils.set_random_seed(seed)  # once: TensorFlow forgets by it what it has made ready to run
    keras.config.set_dtype_policy(system.fit.precision)
    autoencoder = build(system.model, system.feature)
    trainer_class = DistributedTrainer if distribution.is_distributed(tf.distribute.get_strategy()) else WindowTrainer
    # With a ConvAutoencoder's steps of seconds, Ctrl-C would wait for several.
    single = trainer_class is DistributedTrainer or isinstance(system.model, ConvAutoencoder)
    trainer = trainer_class(
        autoencoder,
        system.feature,
        batch_size=system.fit.batch_size,
        steps_per_call=1 if single else STEPS_PER_CALL,
        hop=system.model.hop,
    )
    trainer.compile(make_optimizer(system.fit), system.fit.compile.loss, jit_compile=False)
    trainer.optimizer.build(autoencoder.trainable_variables)  # in its first step, the step would be traced twice
    return trainer


def _train_one(job: Job, trainer: WindowTrainer) -> tuple[dict[str, list[float]], "TrainingErrors"]:
    """Train the autoencoder of one machine type from its start, or from where an interrupted run got to.

    Returns
    -------
    dict : the losses of each epoch
    TrainingErrors : of the training clips
    """
    feature, fit = job.system.feature, job.system.fit
    trainer.start_anew()
    blocks = job.watch(features.log_mel_clips(job.clips, feature, job.run.cache))
    offsets = features.clip_offsets(job.clips, feature)
    n_windows = trainer.load(blocks, offsets)
    # The official split: Keras's validation_split takes the last vectors, before any shuffling.
    n_train = int(np.floor(n_windows * (1 - fit.validation_split)))
    if n_train < 1:
        raise UserError(f"{job.name}: {n_windows} vectors leave none to train on; lower fit.validation_split")
    validation = None
    if n_train < n_windows:
        validation = tf.data.Dataset.range(n_train, n_windows).batch(fit.batch_size * trainer.steps_per_call)
    history = fit_job(
        trainer.autoencoder,
        trainer,
        job,
        n_train=n_train,
        validation=validation,
        steps_per_call=trainer.steps_per_call,
    )
    log_mels = (trainer.log_mel[first:end].numpy() for first, end in itertools.pairwise(offsets))
    firsts = np.searchsorted(trainer.starts.numpy(), offsets[:-1])
    errors = TrainingErrors.of(
        trainer.autoencoder, job.system, job.clips, job.watch(log_mels), held_out=firsts >= n_train
    )
    trainer.unload()
    return history, errors


def require(run: Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Raise UserError unless there is a finished model for each machine type, fit for its clips."""
    for machine_type, test_clips in clips.items():
        if isinstance(system.model, OfficialModel):
            load_official(official_path(system, machine_type))
            continue
        check_sample_rate(run.require_trained(system, machine_type), test_clips)


def made_by(run: Run, system: System, machine_type: str) -> list[Path]:
    """Files that stand for what scores the clips of a machine type: the model's record, or the official model."""
    if isinstance(system.model, OfficialModel):
        return [official_path(system, machine_type)]
    return [record_path(run.model_folder(system), machine_type)]


def anomaly_scores(run: Run, system: System, machine_type: str, clips: Sequence[Clip]) -> np.ndarray:
    """Scores of the clips by the machine type's model, shape (n_clips,)."""
    if isinstance(system.model, OfficialModel):
        return score_clips(load_official(official_path(system, machine_type)), run, system, clips)
    inverses = _training_errors(run, system, machine_type).inverse_covariances
    return score_clips(load_finished(run, system, machine_type), run, system, clips, inverses)


def training_scores(run: Run, system: System, machine_type: str) -> TrainingScores:
    """Scores of the clips that the machine type's model was trained on."""
    return _training_errors(run, system, machine_type).scores(system.model.aggregate)


def deviations(run: Run, system: System, machine_type: str, clips: Sequence[Clip]) -> list[Deviation]:
    """Where each clip is unlike the training clips: squared error of each band beyond what it would be of new ones."""
    edges = mel_edges(system.feature, clips[0].sample_rate)
    usual = _training_errors(run, system, machine_type).of_bands()
    relative = system.model.aggregate in OF_RESIDUALS
    log_mels = features.log_mel_clips(clips, system.feature, None)
    found = errors_by_band(load_finished(run, system, machine_type), log_mels, **vectors_of(system))
    about = {"aspects": np.full(len(usual), ""), "unit": "of that in training" if relative else "dB^2"}
    return [
        Deviation(
            system.name,
            edges,
            edges[:-1],
            edges[1:],
            weights=(of_bands - usual) / (usual if relative else 1),
            errors=errors,
            **about,
        )
        for errors, of_bands in found
    ]


def _training_errors(run: Run, system: System, machine_type: str) -> TrainingErrors:
    name = scores_path(run.model_folder(system), machine_type).name
    return TrainingErrors.read(run.checked_file(system, machine_type, name))


def score_clips(
    model: keras.Model, run: Run, system: System, clips: Sequence[Clip], inverses: np.ndarray | None = None
) -> np.ndarray:
    """Reconstruction error of each clip, shape (n_clips,), with the progress shown.

    Parameters
    ----------
    inverses : inverse covariances of the residuals in training, for the aggregates that take them
    """
    feature = system.feature
    if model.input_shape[1:] != (feature.n_mels * feature.frames,):
        raise UserError(
            f"the model takes vectors of {model.input_shape[1:]} values; feature.n_mels * feature.frames gives "
            f"{feature.n_mels * feature.frames}: set these keys to what the model was trained with"
        )

    log_mels = run.watch(features.log_mel_clips(clips, feature, run.cache))
    how, cut = system.model.aggregate, vectors_of(system)
    if how in OF_RESIDUALS:
        of_clips = errors_and_moments(model, log_mels, **cut)
        scores = np.array([mahalanobis(moments, inverses, how) for _, moments in of_clips])
        check_finite(clips, scores)
        return scores
    errors, counts = vector_errors(model, log_mels, **cut)
    check_finite(clips, aggregated(errors, counts, "mean"))
    check_counts(counts, how)
    return aggregated(errors, counts, how)


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
        if not kinds <= DENSE_LAYERS:
            raise UserError(f"{path}: has layers {sorted(kinds - DENSE_LAYERS)}; not the official network")
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a model of the official baseline ({error})") from error


def parts(run: Run, system: System, machine_type: str) -> list[Part]:
    """What is exported: the network, and how a clip becomes its vectors and their errors a score."""
    windows = {
        "frames": system.feature.frames,
        "hop": system.model.hop,
        "order": "oldest frame first, each n_mels wide",
    }
    trained, how = _training_errors(run, system, machine_type), system.model.aggregate

    def score(inverses: np.ndarray) -> dict:
        learnt = {"inverse_covariances": inverses.tolist()} if how in OF_RESIDUALS else {}
        return {"kind": "reconstruction", "aggregate": how, **learnt}

    def learn(clips: Sequence[Clip], found: np.ndarray) -> tuple[dict, np.ndarray]:
        inverses = trained.inverse_covariances
        if how in OF_RESIDUALS:
            inverses = inverse_covariances(found, clips)
            found = np.array([mahalanobis(moments, inverses, how) for moments in found])
        return score(inverses), trained.as_scores(found).scores

    return [
        Part(
            system,
            machine_type,
            {"windows": windows, "score": score(trained.inverse_covariances)},
            machine_type,
            load_finished(run, system, machine_type),
            f"{system.name}_{machine_type}",
            learn,
        )
    ]
