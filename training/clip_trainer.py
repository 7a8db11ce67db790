"""Training of the classifiers: examples of the clips batch by batch, mixup, scaling, settled statistics."""

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from config import Classifier, L2Softmax, SpectralL2Softmax, System
from training import distribution
from training.backbone import BATCH_NORM_MOMENTUM
from training.fit import epoch_batches
from training.metric_layers import margin_softmax_loss
from training.optimizers import make_optimizer

FRAME_TYPE = np.float16  # of the frames that are held, at half the memory: 2^-11 off, 0.03 dB where they are not silent
# Added to the number of the step: draws that have nothing in common.
MIXUP_DRAW, EXCHANGE_DRAW, NOISE_DRAW = 2**40, 2**41, 2**42
SHIFTS = np.linspace(0.5, 3, 16) / 60  # of all bands: half a band to three, where there are 60
STATISTICS_BATCHES = 100  # at most, for the statistics that are taken after training


class BandStatistics:
    """Mean, deviation and range of each mel band over blocks of frames that come one after the other."""

    def __init__(self, n_mels: int):
        self.count = 0
        self.sums, self.squares = np.zeros(n_mels), np.zeros(n_mels)
        self.lowest, self.highest = np.full(n_mels, np.inf), np.full(n_mels, -np.inf)

    def add(self, block: np.ndarray) -> None:
        """Take a block, (n_frames, n_mels) [dB]."""
        self.count += len(block)
        self.sums += block.sum(axis=0, dtype=np.float64)
        self.squares += np.square(block, dtype=np.float64).sum(axis=0)
        self.lowest = np.minimum(self.lowest, block.min(axis=0))
        self.highest = np.maximum(self.highest, block.max(axis=0))

    def scaling(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation [dB], (n_mels,) each, by which the network scales its input.

        ``standard``: those of all values; ``standard_per_band``: those of each band; ``minmax``: such that the values
        reach from -1 to 1.
        """
        means, squares = self.sums / self.count, self.squares / self.count
        if kind == "minmax":
            low, high = self.lowest.min(), self.highest.max()
            means, deviations = np.full_like(means, (high + low) / 2), np.full_like(means, (high - low) / 2)
        elif kind == "standard":
            mean = means.mean()
            deviations = np.full_like(means, math.sqrt(squares.mean() - mean**2))
            means = np.full_like(means, mean)
        else:
            deviations = np.sqrt(np.maximum(squares - means**2, 0))
        return means, np.maximum(deviations, 1e-3)  # a band that never changes stays zero


class AsTheyAre:
    """What a source of examples does unless it says otherwise."""

    def augmented(self, indices: tf.Tensor, inputs: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tuple:
        """Inputs and labels, (n, ...) and (n,), changed at random in training."""
        return inputs, labels

    def heard(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the network gets of examples, mixed ones among them."""
        return inputs


class LogMelWindows(AsTheyAre):
    """One window of each clip, cut out of the log-mel frames.

    The frames are held once. A longer clip gives a window at any place; a shorter one is repeated until it fills the
    window.

    Parameters
    ----------
    log_mel : tf.Variable, shape (n_frames, n_mels) [dB], the frames of all clips
    offsets : ndarray, shape (n_clips + 1,), first frame of each clip, and their number
    order : ndarray, shape (n_clips,), the clips in the order of their indices
    frames : int, frames in a window
    """

    def __init__(self, log_mel: tf.Variable, offsets: np.ndarray, order: np.ndarray, *, frames: int):
        self.log_mel, self.frames = log_mel, frames
        self.firsts = tf.constant(offsets[:-1][order], tf.int32)
        self.lengths = tf.constant(np.diff(offsets)[order], tf.int32)

    def take(self, indices: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """Windows (n, n_mels, frames, 1); ``places`` in [0, 1) say where in the clip."""
        lengths = tf.gather(self.lengths, indices)
        choices = tf.maximum(lengths - self.frames + 1, 1)
        starts = tf.cast(tf.floor(places * tf.cast(choices, tf.float32)), tf.int32)
        within = (starts[:, None] + tf.range(self.frames)) % lengths[:, None]
        windows = tf.gather(self.log_mel, tf.gather(self.firsts, indices)[:, None] + within)
        return tf.cast(tf.transpose(windows, (0, 2, 1))[..., None], tf.float32)


class Descriptors(AsTheyAre):
    """The descriptor of each clip.

    Parameters
    ----------
    vectors : ndarray, shape (n_clips, n_numbers), in the order of the clips' indices
    labels : ndarray, shape (n_train,), classes of those to train on, which come first
    rows : indices of the numbers, (n_bands,) each: of those that tell one thing of all bands, the lowest first
    exchange : float, share of the examples whose lower bands are exchanged
    shift : float, share of the others whose bands are all shifted
    noise : ndarray, shape (n_numbers,), deviation of the noise that is added to each number
    n_classes : int, where there are more than the labels say
    """

    def __init__(
        self,
        vectors: np.ndarray,
        labels: np.ndarray,
        rows: Sequence[np.ndarray],
        *,
        exchange: float,
        shift: float,
        noise: np.ndarray,
        n_classes: int = 0,
    ):
        self.vectors, self.exchange, self.shift = tf.constant(vectors), exchange, shift
        self.n_kinds = 1 + (exchange > 0) + 2 * (shift > 0)  # of examples; each has classes of its own
        self.bands = tf.constant(band_positions(rows, vectors.shape[1]))
        self.lower, self.upper, self.part = map(tf.constant, band_shifts(rows, vectors.shape[1]))
        self.noise = tf.constant(noise, tf.float32) if np.any(noise) else None
        self.by_class = tf.constant(np.argsort(labels, kind="stable"), tf.int32)
        self.places = tf.argsort(self.by_class)  # where a clip is in it
        self.counts = tf.constant(np.bincount(labels, minlength=n_classes), tf.int32)
        self.firsts = tf.cumsum(self.counts, exclusive=True)

    def take(self, indices: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """Descriptors (n, n_numbers); there is one of a clip, wherever the place."""
        return tf.gather(self.vectors, indices)

    def augmented(self, indices: tf.Tensor, inputs: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tuple:
        """Inputs with noise, some exchanged and others shifted, which are of classes of their own beside the clips'.

        What belongs together, and where, is so learnt without anomalies.
        """
        clips, n_classes = inputs, tf.size(self.counts)
        chosen, how, other = tf.unstack(
            tf.random.stateless_uniform((3, tf.shape(labels)[0]), seed + [0, EXCHANGE_DRAW])
        )
        if self.exchange:
            exchanged, can = self.exchanged(indices, clips, labels, how, other)
            yes = can & (chosen < self.exchange)
            inputs, labels = tf.where(yes[:, None], exchanged, inputs), tf.where(yes, labels + n_classes, labels)
        if self.shift:
            shifted, upward = self.shifted(clips, how)
            yes = (chosen >= self.exchange) & (chosen < self.exchange + self.shift * (1 - self.exchange))
            kind = self.n_kinds - 2 + upward
            inputs, labels = tf.where(yes[:, None], shifted, inputs), tf.where(yes, labels + n_classes * kind, labels)
        if self.noise is not None:
            inputs += self.noise * tf.random.stateless_normal(tf.shape(inputs), seed + [0, NOISE_DRAW])
        return inputs, labels

    def exchanged(
        self, indices: tf.Tensor, inputs: tf.Tensor, labels: tf.Tensor, cut: tf.Tensor, other: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Inputs with the bands below ``cut`` of another clip of their class, and whether there is another, (n,).

        Wilkinghoff, Self-supervised learning for anomalous sound detection, ICASSP 2024 (feature exchange), exchanges
        the inputs of a network's branches.

        Parameters
        ----------
        indices, labels : (n,), int32
        cut, other : (n,), in [0, 1), where, and which clip
        """
        counts, firsts = tf.gather(self.counts, labels), tf.gather(self.firsts, labels)
        further = 1 + tf.cast(other * tf.cast(counts - 1, tf.float32), tf.int32)  # from 1 to counts - 1
        place = firsts + (tf.gather(self.places, indices) - firsts + further) % counts
        partners = tf.gather(self.by_class, place)
        return tf.where(self.bands[None] < cut[:, None], tf.gather(self.vectors, partners), inputs), counts > 1

    def shifted(self, inputs: tf.Tensor, how: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Inputs of which each number is what it was some bands above or below, and 1 where what is heard moved up.

        Parameters
        ----------
        how : (n,), in [0, 1), which of ``SHIFTS``, down or up
        """
        number = tf.cast(how * self.lower.shape[0], tf.int32)
        ends = (tf.gather(one, number) for one in (self.lower, self.upper))
        at_lower, at_upper = (tf.gather(inputs, one, batch_dims=1) for one in ends)
        part = tf.gather(self.part, number)
        return at_lower + part * (at_upper - at_lower), number // len(SHIFTS)


def band_positions(rows: Sequence[np.ndarray], n_numbers: int) -> np.ndarray:
    """Which band each number is of, from 0 (the lowest) to 1, (n_numbers,), float32; ``rows`` as in Descriptors."""
    found = np.zeros(n_numbers, np.float32)
    for row in rows:
        found[row] = (np.arange(len(row)) + 0.5) / len(row)
    return found


def band_shifts(rows: Sequence[np.ndarray], n_numbers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Between which numbers lies what each number is after a shift, and how near to the second, (n_shifts, n_numbers).

    What comes in from beyond the outermost bands is like them. The first half of the shifts move what is heard down.
    """
    shifts = np.concatenate([SHIFTS, -SHIFTS])[:, None]
    lower, upper = np.tile(np.arange(n_numbers), (2, len(shifts), 1))
    part = np.zeros((len(shifts), n_numbers), np.float32)
    for row in rows:
        places = np.clip(np.arange(len(row)) + shifts * len(row), 0, len(row) - 1)
        below = places.astype(int)
        lower[:, row], upper[:, row] = row[below], row[np.minimum(below + 1, len(row) - 1)]
        part[:, row] = places - below
    return lower, upper, part


class ClipTrainer(keras.Model):
    """Trains the network on one example of each clip in an epoch; ``fit`` is given indices of clips.

    In a distributed step every replica makes the examples of the whole batch, which is what mixup mixes, and goes on
    with its own part of them.

    Parameters
    ----------
    source : LogMelWindows or Descriptors, gives the network's inputs
    labels : ndarray, shape (n_clips,), class of each clip, in the order of the source's indices
    """

    def __init__(
        self,
        network: keras.Model,
        model: Classifier,
        source: LogMelWindows | Descriptors,
        labels: np.ndarray,
        seed: int,
    ):
        super().__init__(autocast=False)  # under mixed precision, the layers cast what they are given themselves
        self.network, self.source, self.seed = network, source, seed
        self.steps_taken = tf.Variable(  # the optimiser counts those that moved it
            0, dtype=tf.int64, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self.labels = tf.constant(labels, tf.int32)
        self.n_classes = network.output_shape[-1]
        self.mixup, self.mixup_share = model.mixup, model.mixup_share
        self.margin = model.margin if isinstance(model, L2Softmax | SpectralL2Softmax) else 0
        self.accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
        self.built = True  # Keras would build it on a batch of indices

    def call(self, inputs, training=False):
        """Logits of (indices, inputs of the network) by the statistics of the batch, in validation as well.

        The moving statistics lag behind the weights: by them, what has been learnt would look like chance. The network
        gets statistics of its own when it is trained, see :func:`settle_statistics`.
        """
        return self.network(self.source.heard(inputs[1]), training=True)

    def examples(self, indices: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Inputs of the network, (n, ...), and classes, (n,)."""
        return self.source.take(indices, places), tf.gather(self.labels, indices)

    def one_hot(self, labels: tf.Tensor) -> tf.Tensor:
        """(n,) -> (n, n_classes)."""
        return tf.one_hot(labels, self.n_classes)

    def train_step(self, indices):
        """One step; all that is drawn at random follows from the seed and the number of the step."""
        seed = tf.stack([tf.constant(self.seed, tf.int64), self.steps_taken.assign_add(1) - 1])
        places = tf.random.stateless_uniform(tf.shape(indices), seed)
        inputs, labels = self.source.augmented(indices, *self.examples(indices, places), seed)
        labels = self.one_hot(labels)
        if self.mixup:
            inputs, labels = self.mixed(inputs, labels, seed)
        return self._on_own_part(super().train_step, indices, inputs, self.for_each_network(labels))

    def for_each_network(self, labels: tf.Tensor) -> tf.Tensor:
        """Labels (n, n_classes) as the logits are: (n, n_networks, n_classes) where there are several networks."""
        if len(self.network.output_shape) == 2:
            return labels
        return tf.repeat(labels[:, None], self.network.output_shape[1], axis=1)

    def mixed(self, inputs: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixup (Zhang et al. 2018): each example with its mirror image in the batch, in parts of Beta(a, a)."""
        gammas = tf.random.stateless_gamma((2, tf.shape(labels)[0]), seed, alpha=self.mixup)
        part = gammas[0] / tf.maximum(gammas[0] + gammas[1], 1e-30)
        if self.mixup_share < 1:
            chosen = tf.random.stateless_uniform(tf.shape(part), seed + [0, MIXUP_DRAW]) < self.mixup_share
            part = tf.where(chosen, part, 1.0)
        of_input, of_label = tf.reshape(part, (-1, *[1] * (len(inputs.shape) - 1))), part[:, None]
        inputs = of_input * inputs + (1 - of_input) * inputs[::-1]
        return inputs, of_label * labels + (1 - of_label) * labels[::-1]

    def test_step(self, indices):
        """Loss and accuracy of a validation batch, at the middle of each clip."""
        inputs, labels = self.examples(indices, tf.fill(tf.shape(indices), 0.5))
        return self._on_own_part(super().test_step, indices, inputs, self.for_each_network(self.one_hot(labels)))

    def _on_own_part(
        self, step: Callable, indices: tf.Tensor, inputs: tf.Tensor, labels: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Keras's step; the indices of the whole batch go with it, as Keras weights the loss by their number."""
        inputs, labels = (distribution.own_rows(values, never_empty=True) for values in (inputs, labels))
        logs = step(((indices, inputs), labels))
        return distribution.reducible(logs) if distribution.is_distributed(tf.distribute.get_strategy()) else logs

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Part that this replica has in the batch's mean of softmax cross-entropy or, with a margin, ArcFace's loss.

        Penalties of the weights are added.
        """
        if self.margin:
            alpha = self.network.get_layer("embedding").alpha
            losses = margin_softmax_loss(y, y_pred, alpha=alpha, margin=self.margin)
        else:
            losses = keras.losses.categorical_crossentropy(y, y_pred, from_logits=True)
        share = distribution.share(x[0], never_empty=True) / distribution.replica()[1]
        weights = tf.add_n(self.losses) / distribution.replica()[1] if self.losses else 0.0
        return tf.reduce_mean(losses) * share + weights

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Loss and accuracy so far."""
        self.accuracy.update_state(y, y_pred, sample_weight=distribution.row_weight(x[0]))
        return self.get_metrics_result()


def make_trainer(
    network: keras.Model, system: System, source: LogMelWindows | Descriptors, labels: np.ndarray, seed: int
) -> ClipTrainer:
    """Trainer, compiled. On a CPU, XLA's convolutions take ten times as long as TensorFlow's own."""
    trainer = ClipTrainer(network, system.model, source, labels, seed)
    trainer.compile(make_optimizer(system.fit), jit_compile=False)
    return trainer


def settle_statistics(trainer: ClipTrainer, *, n_train: int, batch_size: int, seed: int) -> None:
    """Take the statistics of batch normalisation anew from training clips (Wu and Johnson 2021, PreciseBN).

    The moving statistics of training lag behind the weights; after a short training, what a network gives in inference
    has little to do with what it gave in training. Here each is the plain mean over batches of the trained network.
    """
    norms = [layer for layer in trainer.network._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    momentum = tf.Variable(0.0, trainable=False)

    @tf.function
    def pass_on(indices: tf.Tensor) -> None:
        inputs, _ = trainer.examples(indices, tf.fill(tf.shape(indices), 0.5))
        trainer.call((indices, inputs))

    for layer in norms:
        layer.momentum = momentum
    n_batches = min(STATISTICS_BATCHES, max(1, n_train // batch_size))  # whole ones
    batches = epoch_batches(n_train, seed=seed, batch_size=batch_size, shuffle=True)
    for number, indices in enumerate(batches.take(n_batches)):
        momentum.assign(number / (number + 1))
        pass_on(indices)
    for layer in norms:
        layer.momentum = BATCH_NORM_MOMENTUM
