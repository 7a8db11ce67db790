"""Training of the autoencoders on windows that are cut out of the log-mel frames batch by batch."""

import mmap
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from audio import features
from audio.settings import Feature
from training import distribution, process

DENSE_LAYERS = {"InputLayer", "Dense", "BatchNormalization", "Activation"}  # of the official network


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
        self.is_dense = kinds <= DENSE_LAYERS and autoencoder.layers[1].compute_dtype == "float32"

    def start_anew(self) -> None:
        """Give the autoencoder the weights, and the state of its random numbers, that it was built with."""
        for variable, value in zip(self.autoencoder.variables, self.initial_values, strict=True):
            variable.assign(value)

    def load(self, blocks: Iterable[np.ndarray], offsets: np.ndarray) -> int:
        """Take the log-mel frames of the clips, (n_frames, n_mels) each; the number of windows in them."""
        self.set_frames(blocks, offsets)
        process.give_back_freed_memory()  # that the frames were computed in
        for layer in self.autoencoder.layers:
            if hasattr(layer, "adapt"):
                layer.adapt(self.log_mel.value())
        starts = features.window_starts(offsets, self.frames, self.hop)
        self.starts.assign(starts)
        return len(starts)

    def unload(self) -> None:
        """Let the frames go."""
        self.log_mel.assign(tf.zeros((0, self.n_mels)))

    def set_frames(self, blocks: Iterable[np.ndarray], offsets: np.ndarray) -> None:
        """Put the clips' frames into ``log_mel``.

        The variable takes over memory that is mapped for it and goes back to the system with it. TensorFlow would copy:
        the frames of a large machine type would be held twice.
        """
        memory = mmap.mmap(-1, 4 * int(offsets[-1]) * self.n_mels)  # at a page, as TensorFlow wants it to take it over
        log_mel = np.frombuffer(memory, np.float32).reshape(-1, self.n_mels)
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
