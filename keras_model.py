"""The autoencoders: build, train, score, load.

The official network and the report's differ in the widths of their layers alone. The variational and the convolutional
autoencoder map vectors to vectors like these, so that all are trained and score clips in the same way.
"""

import functools
import itertools
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras import layers

import distribution
import features
import process
import records
import training
from common import Clip, UserError, fault_list, stack_frames
from config import AGGREGATES, ConvAutoencoder, DenseAutoencoder, Feature, OfficialModel, System, VariationalAutoencoder
from workload import passes

STEPS_PER_CALL = 16  # training steps that TensorFlow takes before it is Keras's turn again, which costs a millisecond
SCORING_BATCH = 1024  # vectors in one call of the model: three clips of 10 s; one clip alone takes the time of a call
SCORING_PATCHES = 256  # the same for a ConvAutoencoder, whose layers hold up to 16 times the values of its input
OFFICIAL_LAYERS = {"InputLayer", "Dense", "BatchNormalization", "Activation"}

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


def training_pass(network: keras.Model, vectors: tf.Tensor) -> tf.Tensor:
    """What ``network(vectors, training=True)`` gives for blocks of Dense + BN + ReLU, in fewer operations.

    Keras puts a batch normalisation together from a dozen, each a pass over the activations, and so are their
    gradients: on a CPU, a step of the official network takes a fifth longer.
    """
    h = vectors
    *hidden, last = network.layers[1:]
    for dense, norm in zip(hidden[::3], hidden[1::3], strict=True):
        h, mean, variance = _normalised_relu(
            tf.matmul(h, dense.kernel), *map(tf.convert_to_tensor, (dense.bias, norm.gamma, norm.beta)), norm.epsilon
        )
        for moving, batch in ((norm.moving_mean, mean), (norm.moving_variance, variance)):
            moving.assign(moving * norm.momentum + batch * (1 - norm.momentum))
    return tf.matmul(h, last.kernel) + last.bias


def _normalised_relu(
    h: tf.Tensor, bias: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """``relu(BN(h + bias))`` by the batch's statistics, shape (n, units), and these: mean and variance, (units,).

    The gradient is that of Ioffe & Szegedy, Batch Normalization, ICML 2015, section 3. The bias has none: it moves the
    mean, which is subtracted again.
    """

    @tf.custom_gradient
    def differentiable(h: tf.Tensor, bias: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple:
        n = tf.cast(tf.shape(h)[0], h.dtype)
        mean = tf.reduce_sum(h, axis=0) / n
        centred = h - mean
        variance = tf.reduce_sum(centred * centred, axis=0) / n
        scale = tf.math.rsqrt(variance + epsilon)
        output = tf.nn.relu(centred * (gamma * scale) + beta)

        def gradients(d_output: tf.Tensor, *_) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            d_output = tf.raw_ops.ReluGrad(gradients=d_output, features=output)
            d_beta = tf.reduce_sum(d_output, axis=0)
            d_gamma = tf.reduce_sum(d_output * centred, axis=0) * scale
            d_h = (d_output - d_beta / n - centred * (scale * d_gamma / n)) * (gamma * scale)
            return d_h, tf.zeros_like(bias), d_gamma, d_beta

        return (output, mean + bias, variance), gradients

    return differentiable(h, bias, gamma, beta)


class WindowTrainer(keras.Model):
    """Trains an autoencoder on windows that are cut out of the log-mel frames batch by batch.

    The frames are on the device once, in float32; ``fit`` is given indices of windows, those of several batches at
    once. The vectors of a training set, five times the size of its frames, are never held. One trainer serves all
    machine types of a system, so that the training step is traced and compiled once.
    """

    def __init__(
        self,
        autoencoder: keras.Model,
        feature: Feature,
        *,
        batch_size: int,
        steps_per_call: int = 1,
        hop: int = 1,
    ):
        super().__init__(autocast=False)  # under mixed precision, the layers cast what they are given themselves
        self.autoencoder, self.batch_size, self.steps_per_call = autoencoder, batch_size, steps_per_call
        self.initial_values = [np.asarray(variable) for variable in autoencoder.variables]
        self.frames, self.n_mels, self.hop = feature.frames, feature.n_mels, hop
        self.log_mel = tf.Variable(tf.zeros((0, self.n_mels)), shape=(None, self.n_mels), trainable=False)
        self.starts = tf.Variable(tf.zeros(0, tf.int32), shape=(None,), trainable=False)
        self.step = plain = tf.function(super().train_step)
        if process.compiles_with_xla():
            # Outside stay the gather, whose shapes change with the machine type, and an epoch's last batch, of a shape
            # of its own: not worth the seconds and the memory of compiling them.
            compiled = tf.function(lambda batch: plain(batch), jit_compile=True)
            self.step = lambda batch: tf.cond(
                tf.equal(tf.shape(batch[0])[0], self.batch_size), lambda: compiled(batch), lambda: plain(batch)
            )
        kinds = {type(layer).__name__ for layer in autoencoder.layers}
        self.is_conv = "Conv2D" in kinds
        self.is_dense = kinds <= OFFICIAL_LAYERS and autoencoder.layers[1].compute_dtype == "float32"

    def start_anew(self) -> None:
        """Give the autoencoder the weights, and the state of its random numbers, that it was built with."""
        for variable, value in zip(self.autoencoder.variables, self.initial_values, strict=True):
            variable.assign(value)

    def load(self, blocks: Iterable[np.ndarray], offsets: np.ndarray) -> int:
        """Take the log-mel frames of the clips, (n_frames, n_mels) each; the number of windows in them."""
        self.set_frames(blocks, offsets)
        for layer in self.autoencoder.layers:
            if isinstance(layer, BandScale):
                layer.adapt(self.log_mel.value())
        starts = features.window_starts(offsets, self.frames, self.hop)
        self.starts.assign(starts)
        return len(starts)

    def unload(self) -> None:
        """Let the frames go."""
        self.log_mel.assign(tf.zeros((0, self.n_mels)))

    def set_frames(self, blocks: Iterable[np.ndarray], offsets: np.ndarray) -> None:
        """Put the clips' frames into ``log_mel``.

        The variable takes over NumPy's memory. TensorFlow would copy, and its own memory, once used, it never returns:
        the frames of a large machine type would be held twice.
        """
        n_values = int(offsets[-1]) * self.n_mels
        memory = np.empty(4 * n_values + 63, np.uint8)
        first = -memory.ctypes.data % 64  # TensorFlow takes over memory at multiples of 64 bytes alone
        log_mel = memory[first : first + 4 * n_values].view(np.float32).reshape(-1, self.n_mels)
        for start, block in zip(offsets, blocks, strict=False):
            log_mel[start : start + len(block)] = block
        self.log_mel.assign(tf.experimental.dlpack.from_dlpack(log_mel.__dlpack__()))

    def call(self, vectors, training=False):
        """Reconstruct."""
        if training and self.is_dense:
            return training_pass(self.autoencoder, vectors)
        return self.autoencoder(vectors, training=training)

    def vectors(self, indices: tf.Tensor) -> tf.Tensor:
        """Windows ``indices`` as vectors, shape (n, frames * n_mels), oldest frame first."""
        rows = tf.gather(self.starts, indices)[:, None] + tf.range(self.frames)
        frames = self.log_mel.value()  # gathered from the variable itself, they would be copied
        return tf.reshape(tf.gather(frames, rows), (-1, self.frames * self.n_mels))

    def train_step(self, indices):
        """A step on each batch of windows, which are input and target."""
        return self._for_each_batch(self.step, indices)

    def test_step(self, indices):
        """Validation loss of the windows, batch by batch."""
        return self._for_each_batch(super().test_step, indices)

    def _for_each_batch(self, step: Callable, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        def body(start: tf.Tensor) -> tf.Tensor:
            vectors = self.vectors(indices[start : start + self.batch_size])
            step((vectors, vectors))
            return start + self.batch_size

        tf.while_loop(lambda start: start < tf.size(indices), body, [0])
        return self.get_metrics_result()


class DistributedTrainer(WindowTrainer):
    """The same on several replicas: each is given the indices of the whole batch and takes its own part.

    Its steps are Keras's own: what updates the variables of several replicas cannot be compiled as one function.
    """

    def set_frames(self, blocks: Iterable[np.ndarray], offsets: np.ndarray) -> None:
        """Put the clips' frames into ``log_mel``, at once: by parts, the first replica alone would get them."""
        log_mel = np.empty((int(offsets[-1]), self.n_mels), np.float32)
        for start, block in zip(offsets, blocks, strict=False):
            log_mel[start : start + len(block)] = block
        self.log_mel.assign(log_mel)

    def own_vectors(self, indices: tf.Tensor) -> tf.Tensor:
        """The part of the windows that this replica works on; of a network with convolutions, never none."""
        return self.vectors(distribution.own_part(indices, never_empty=self.is_conv))

    def call(self, indices, training=False):
        """Reconstruct this replica's part of the windows."""
        return self.autoencoder(self.own_vectors(indices), training=training)

    @property
    def losses(self):
        """What layers add to this replica's loss; they are shared, and hold what they add to that of the others."""
        return distribution.own_tensors(super().losses)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Loss of this replica's part; Keras weights what it reports by the length of ``x``, the whole batch."""
        vectors = self.own_vectors(x)
        loss = super().compute_loss(vectors, vectors, y_pred, training=training)
        share = distribution.share(x, never_empty=self.is_conv)
        return tf.math.multiply_no_nan(loss, share)  # the mean over an empty part is no number

    def train_step(self, indices):
        """One step; the windows are cut out in ``call`` and ``compute_loss``."""
        return distribution.reducible(keras.Model.train_step(self, indices))

    def test_step(self, indices):
        """Validation loss of one batch."""
        return distribution.reducible(keras.Model.test_step(self, indices))


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
            job.skip(passes(system, len(train_clips)))
            continue
        if trainer is None:
            keras.utils.clear_session()  # layers are numbered from the start: the same file whatever was built before
            with run.strategy.scope():
                trainer = make_trainer(system, run.config.seed)
        distribution.synchronise(trainer.autoencoder, distribution.is_distributed(run.strategy))
        history, errors = _train_one(job, trainer)
        distribution.synchronise(trainer.autoencoder, False)  # the file says nothing of how it was trained
        name = records.scores_path(job.folder, machine_type).name
        thresholds = {machine_type: job.thresholds(errors.scores(system.model.aggregate))}
        training.save_model(trainer.autoencoder, job, history, {name: errors.save}, {"thresholds": thresholds})


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
    trainer.compile(training.make_optimizer(system.fit), system.fit.compile.loss, jit_compile=False)
    trainer.optimizer.build(autoencoder.trainable_variables)  # in its first step, the step would be traced twice
    return trainer


def _train_one(job: training.Job, trainer: WindowTrainer) -> tuple[dict[str, list[float]], "TrainingErrors"]:
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
    history = training.train(
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


def require(run: training.Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Raise UserError unless there is a finished model for each machine type, fit for its clips."""
    for machine_type, test_clips in clips.items():
        if isinstance(system.model, OfficialModel):
            load_official(official_path(system, machine_type))
            continue
        records.check_sample_rate(records.require_trained(run, system, machine_type), test_clips)


def made_by(run: training.Run, system: System, machine_type: str) -> list[Path]:
    """Files that stand for what scores the clips of a machine type: the model's record, or the official model."""
    if isinstance(system.model, OfficialModel):
        return [official_path(system, machine_type)]
    return [records.record_path(run.model_folder(system), machine_type)]


def anomaly_scores(run: training.Run, system: System, machine_type: str, clips: Sequence[Clip]) -> np.ndarray:
    """Scores of the clips by the machine type's model, shape (n_clips,); see :func:`reconstruction_errors`."""
    if isinstance(system.model, OfficialModel):
        model = load_official(official_path(system, machine_type))
    else:
        model = training.load_finished(run, system, machine_type)
    return score_clips(model, run, system, clips)


def training_scores(run: training.Run, system: System, machine_type: str) -> records.TrainingScores:
    """Scores of the clips that the machine type's model was trained on."""
    folder = run.model_folder(system)
    record = records.require_trained(run, system, machine_type)
    return TrainingErrors.read(
        records.checked_file(folder, record, records.scores_path(folder, machine_type).name)
    ).scores(system.model.aggregate)


def score_clips(model: keras.Model, run: training.Run, system: System, clips: Sequence[Clip]) -> np.ndarray:
    """Reconstruction error of each clip, shape (n_clips,), with the progress shown."""
    feature = system.feature
    if model.input_shape[1:] != (feature.n_mels * feature.frames,):
        raise UserError(
            f"the model takes vectors of {model.input_shape[1:]} values; feature.n_mels * feature.frames gives "
            f"{feature.n_mels * feature.frames}: set these keys to what the model was trained with"
        )

    def watched() -> Iterable[np.ndarray]:
        for block in features.log_mel_clips(clips, feature, run.cache):
            run.progress.update()
            yield block

    errors, counts = vector_errors(model, watched(), **_vectors_of(system))
    check_finite(clips, errors, counts)
    check_counts(counts, system.model.aggregate)
    return aggregated(errors, counts, system.model.aggregate)


def _vectors_of(system: System) -> dict[str, int]:
    """How a system's clips are cut into vectors, and how many of these go through the model at once."""
    batch = SCORING_PATCHES if isinstance(system.model, ConvAutoencoder) else SCORING_BATCH
    return {"frames": system.feature.frames, "hop": system.model.hop, "batch": batch}


def check_finite(clips: Sequence[Clip], errors: np.ndarray, counts: np.ndarray) -> None:
    """Raise UserError, naming the clips, unless the errors of their vectors are numbers."""
    means = aggregated(errors, counts, "mean")
    bad = [f"{clip.path}: {score}" for clip, score in zip(clips, means, strict=True) if not np.isfinite(score)]
    if bad:
        raise fault_list("Scores that are not finite numbers", bad, "The model is broken: delete it and train anew.")


def check_counts(counts: np.ndarray, how: str) -> None:
    """Raise UserError where the deviation is asked for of clips that have one vector."""
    if how == "std" and counts.min() == 1:
        raise UserError(
            f"model.aggregate: std: {np.sum(counts == 1)} clips are so short that they give one vector, which has no "
            "deviation; take another aggregate, or lower feature.frames or model.hop"
        )


def reconstruction_errors(
    model: keras.Model,
    log_mels: Iterable[np.ndarray],
    *,
    frames: int,
    hop: int = 1,
    batch: int = SCORING_BATCH,
    aggregate: str = "mean",
) -> np.ndarray:
    """Reconstruction error of each clip, shape (n_clips,), float64; higher = more anomalous.

    See :func:`vector_errors` and :func:`aggregated`; with ``mean`` it is the score of the official 01_test.py.
    """
    return aggregated(*vector_errors(model, log_mels, frames=frames, hop=hop, batch=batch), aggregate)


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

    Notes
    -----
    The vectors of many clips go through the model in one call; the last call is filled up, so that the model is
    compiled once.
    """
    errors_of = error_function(model)
    errors, counts, waiting, n_waiting = [], [], [], 0

    def flush(last: bool) -> None:
        nonlocal waiting, n_waiting
        vectors = np.concatenate(waiting)
        end = len(vectors) if last else len(vectors) // batch * batch
        for start in range(0, end, batch):
            block = vectors[start : start + batch]
            filled = block if len(block) == batch else np.pad(block, ((0, batch - len(block)), (0, 0)))
            errors.append(errors_of(filled).numpy()[: len(block)])
        waiting, n_waiting = [vectors[end:]], len(vectors) - end

    for log_mel in log_mels:
        waiting.append(np.ascontiguousarray(stack_frames(log_mel.T, frames=frames)[::hop]))
        counts.append(len(waiting[-1]))
        n_waiting += counts[-1]
        if n_waiting >= batch:
            flush(last=False)
    if n_waiting:
        flush(last=True)
    return np.concatenate(errors).astype(np.float64), np.array(counts)


@functools.lru_cache(maxsize=1)  # in training, one network is that of every machine type
def error_function(model: keras.Model) -> Callable[[np.ndarray], tf.Tensor]:
    """Mean squared reconstruction errors of vectors, (n, size) -> (n,), as a function that TensorFlow compiles once."""

    @tf.function
    def errors_of(vectors: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.square(vectors - model(vectors, training=False)), axis=1)

    return errors_of


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
    errors: dict[str, np.ndarray]  # aggregate -> (n_clips,), float64

    KINDS: ClassVar[dict] = {
        "names": ("U", 1),
        "machine_ids": ("U", 1),
        "checksums": ("i", 1),
        "counts": ("i", 1),
        "held_out": ("i", 1),
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
        errors, counts = vector_errors(model, log_mels, **_vectors_of(system))
        check_finite(clips, errors, counts)
        return cls(
            np.array([clip.name for clip in clips]),
            np.array([clip.machine_id for clip in clips]),
            np.array([clip.crc for clip in clips]),
            counts,
            np.zeros(len(clips), int) if held_out is None else held_out.astype(int),
            {how: aggregated(errors, counts, how) for how in AGGREGATES},
        )

    def save(self, path: Path) -> None:
        """Write as npz, without pickles."""
        np.savez(path, **{name: getattr(self, name) for name in self.KINDS}, **self.errors)

    @classmethod
    def read(cls, path: Path) -> "TrainingErrors":
        """What :meth:`save` has written."""
        stored = records.read_arrays(path, cls.KINDS | dict.fromkeys(AGGREGATES, ("f", 1)))
        return cls(*(stored.pop(name) for name in cls.KINDS), stored)

    def scores(self, aggregate: str) -> records.TrainingScores:
        """Those of one way of aggregating, of the clips trained on as they would be of new ones."""
        check_counts(self.counts, aggregate)
        scores = corrected(self.errors[aggregate], self.machine_ids, self.held_out > 0)
        return records.TrainingScores(tuple(self.names.tolist()), self.machine_ids, scores, self.checksums)


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
