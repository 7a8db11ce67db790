"""The classifier with an outlier detector on its embeddings: MobileNetV2, L2-softmax, local outlier factor.

Section 3 of Wei and Liu (2020). One network learns to tell machine types (or machine IDs) apart; the detectors are
fitted per machine type (or ID) to the embeddings of the normal training clips.
"""

import collections
import itertools
import logging
import math
import os
import urllib.request
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import detectors
import distribution
import embedding
import features
import training
from common import Clip, UserError, fault_list, write_whole
from config import L2Softmax, System

NAME = "classifier"  # of the network's files; it is one for all machine types
ALPHA_START = 16.0  # of a trained alpha
BOUND_PROBABILITY = 0.95  # softmax probability of the right class that alpha should allow for
FRAME_TYPE = np.float16  # of the frames that are held, at half the memory: 2^-11 off, 0.03 dB where they are not silent
EMBEDDING_BATCH = 32  # windows in one call of the network
IMAGENET_URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
IMAGENET_WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
IMAGENET_SIZES = (96, 128, 160, 192, 224)
# The moving statistics of training serve the validation loss alone; Keras's 0.999 takes thousands of steps to settle.
BATCH_NORM_MOMENTUM = 0.9
STATISTICS_BATCHES = 100  # at most, for those that are taken after training
MIN_SIZE = 32  # [bands, frames] MobileNetV2 halves its input five times

logger = logging.getLogger(__name__)


# ---- layers and loss ----


@keras.saving.register_keras_serializable(package="metric_model")
class L2Constraint(layers.Layer):
    """``alpha * f / ||f||`` per sample (Ranjan et al. 2017, L2-constrained softmax).

    Parameters
    ----------
    alpha : float, norm of the outputs; where ``trained`` it is where the training starts from
    """

    def __init__(self, alpha: float, trained: bool, **kwargs):
        super().__init__(dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.start, self.trained = alpha, trained

    def build(self, input_shape):
        """Make alpha a weight, whether it is trained or not."""
        initializer = keras.initializers.Constant(self.start)
        self.alpha = self.add_weight(shape=(), initializer=initializer, trainable=self.trained, name="alpha")

    def call(self, inputs):
        """Normalise along the last axis."""
        return self.alpha * ops.normalize(inputs, axis=-1, order=2, epsilon=1e-12)

    def get_config(self):
        """Arguments of the constructor."""
        return {**super().get_config(), "alpha": self.start, "trained": self.trained}


@keras.saving.register_keras_serializable(package="metric_model")
class FusedBatchNormalization(layers.BatchNormalization):
    """Keras's batch normalisation of images, computed by TensorFlow's fused operation.

    Keras 3 puts it together from a dozen operations, which take longer than all of MobileNetV2's convolutions.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalise by the batch's statistics in training, by the moving ones otherwise."""
        if self.synchronized:  # over the replicas of a distributed step
            return super().call(inputs, training=training, mask=mask)
        gamma, beta = tf.cast(self.gamma, tf.float32), tf.cast(self.beta, tf.float32)
        if not (training and self.trainable):
            return tf.compat.v1.nn.fused_batch_norm(
                inputs,
                gamma,
                beta,
                mean=tf.convert_to_tensor(self.moving_mean),
                variance=tf.convert_to_tensor(self.moving_variance),
                epsilon=self.epsilon,
                is_training=False,
            )[0]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, beta, epsilon=self.epsilon, is_training=True
        )
        n = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        variance *= (n - 1) / n  # fused: of the sample; Keras: of the population
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(package="metric_model")
class CosineLogits(layers.Layer):
    """``||f|| * cos(f, w_j)`` for each class j: a Dense layer without bias whose columns have unit norm."""

    def __init__(self, n_classes: int, **kwargs):
        super().__init__(dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.n_classes = n_classes

    def build(self, input_shape):
        """Make the class vectors."""
        self.kernel = self.add_weight(shape=(input_shape[-1], self.n_classes), name="kernel")

    def call(self, inputs):
        """Project on the class vectors."""
        return ops.matmul(inputs, ops.normalize(self.kernel, axis=0, order=2, epsilon=1e-12))

    def get_config(self):
        """Arguments of the constructor."""
        return {**super().get_config(), "n_classes": self.n_classes}


def margin_softmax_loss(labels: tf.Tensor, logits: tf.Tensor, *, alpha: tf.Tensor, margin: float) -> tf.Tensor:
    """ArcFace loss (Deng et al. 2019, eq. 3) for labels that may be mixtures of classes; shape (n,).

    ``sum_j y_j * -log(exp(a cos(t_j + m)) / (exp(a cos(t_j + m)) + sum_{i != j} exp(a cos t_i)))``. Where ``t_j`` is
    above ``pi - m``, ``cos t_j - m sin m`` takes the place of ``cos(t_j + m)``, which would rise again (the authors'
    code): without it a network learns to turn its embeddings away from all classes.

    Parameters
    ----------
    labels : (n, n_classes), each row sums to one
    logits : (n, n_classes), ``alpha * cos t``
    margin : float [rad]
    """
    cosines = tf.clip_by_value(logits / alpha, -1 + 1e-6, 1 - 1e-6)  # acos has no gradient at the ends
    turned = tf.where(
        cosines > -math.cos(margin), tf.cos(tf.acos(cosines) + margin), cosines - margin * math.sin(margin)
    )
    with_margin = alpha * turned
    n_classes = logits.shape[-1]
    alternatives = tf.repeat(logits[:, None, :], n_classes, axis=1)  # (n, class j with margin, class i)
    alternatives = tf.linalg.set_diag(alternatives, with_margin)
    losses = tf.reduce_logsumexp(alternatives, axis=-1) - with_margin
    return tf.reduce_sum(labels * losses, axis=-1)


def alpha_lower_bound(n_classes: int, probability: float) -> float:
    """Smallest alpha that allows a softmax ``probability`` of the right class (Ranjan et al. 2017, eq. 8)."""
    if n_classes <= 2:
        return 0.0
    return math.log(probability * (n_classes - 2) / (1 - probability))


# ---- network ----


def build(
    model: L2Softmax, *, n_mels: int, frames: int, n_classes: int, mean: np.ndarray, deviation: np.ndarray
) -> keras.Model:
    """Network of the report's table in section 3.

    Parameters
    ----------
    mean, deviation : ndarray, shape (n_mels,) [dB], value scaling of each band

    Returns
    -------
    keras.Model : log-mel energies [dB] (n, n_mels, frames, 1) -> logits (n, n_classes); the output of its layer
        ``embedding`` is (n, 1280), (n, 1280 * width) where the width is above 1
    """
    size = (model.input_size, model.input_size) if model.input_size else (n_mels, frames)
    if min(size) < MIN_SIZE:
        raise UserError(
            f"feature: {n_mels} bands x {frames} frames; MobileNetV2 needs {MIN_SIZE} x {MIN_SIZE} at least. "
            "Raise n_mels or frames, or set model.input_size"
        )
    inputs = layers.Input((n_mels, frames, 1))
    per_band = [np.reshape(values, (n_mels, 1, 1)).tolist() for values in (mean, np.square(deviation))]
    # Keras 3.12, the last for Python 3.10, takes no vector for an axis but the last: hence all axes, values repeated.
    h = layers.Normalization((1, 2, 3), *per_band, dtype="float32")(inputs)
    if model.input_size:
        h = layers.Resizing(*size, interpolation=model.resize, dtype="float32")(h)
    h = layers.Concatenate(dtype="float32")([h, h, h])  # (n, *size, 3)
    h = make_backbone(model, size)(h)  # (n, 1280)
    trained = model.alpha == "trained"
    alpha = ALPHA_START if trained else float(model.alpha)
    h = L2Constraint(alpha, trained, name="embedding")(h)
    if model.margin:
        return keras.Model(inputs, CosineLogits(n_classes, name="logits")(h))
    return keras.Model(inputs, layers.Dense(n_classes, dtype="float32", name="logits")(h))


def make_backbone(model: L2Softmax, size: tuple[int, int]) -> keras.Model:
    """MobileNetV2 without its top, (n, *size, 3) -> (n, 1280).

    Its batch normalisation is replaced by ours, which is the same and faster.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on sizes for which there are no ImageNet weights
        original = keras.applications.MobileNetV2(
            input_shape=(*size, 3), alpha=model.width, include_top=False, weights=None, pooling="avg"
        )
    if model.weights:
        load_weights(original, weights_path(model))

    def clone(layer: layers.Layer) -> layers.Layer:
        if isinstance(layer, layers.BatchNormalization):
            return FusedBatchNormalization.from_config({**layer.get_config(), "momentum": BATCH_NORM_MOMENTUM})
        return type(layer).from_config(layer.get_config())

    backbone = keras.models.clone_model(original, clone_function=clone)
    backbone.set_weights(original.get_weights())
    return backbone


def weights_path(model: L2Softmax) -> Path:
    """File of the weights that the network starts from; ImageNet's are fetched into Keras's folder once."""
    if model.weights != "imagenet":
        return Path(model.weights)
    if model.width not in IMAGENET_WIDTHS:
        raise UserError(
            f"model.width: {model.width}; ImageNet weights are there for {', '.join(map(str, IMAGENET_WIDTHS))}. "
            "Take one of these, or set model.weights: null"
        )
    rows = model.input_size if model.input_size in IMAGENET_SIZES else 224
    name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{model.width}_{rows}_no_top.h5"
    path = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models" / name
    if not path.exists():
        logger.info("fetching %s%s", IMAGENET_URL, name)
        try:
            with urllib.request.urlopen(IMAGENET_URL + name, timeout=60) as answer, write_whole(path) as beside:
                beside.write_bytes(answer.read())
        except OSError as error:  # URLError is one
            raise UserError(
                f"model.weights: imagenet: {IMAGENET_URL}{name} cannot be fetched ({error})\n"
                f"Fetch it elsewhere and put it to {path}, or set model.weights: null"
            ) from error
    return path


def load_weights(backbone: keras.Model, path: Path) -> None:
    """Weights of a file into a MobileNetV2 without top."""
    if not path.is_file():
        raise UserError(f"model.weights: no file {path} (looked for {path.resolve()})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras would skip what does not fit, with a warning
            backbone.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError, UserWarning) as error:
        raise UserError(
            f"model.weights: {path} does not hold the weights of a Keras MobileNetV2 without top, pooling avg, of "
            f"this model.width: {error}"
        ) from error


# ---- classes, split, scaling ----


def class_names(model: L2Softmax, clips: Sequence[Clip]) -> list[str]:
    """The class of each clip: its machine type, or machine type and ID."""
    if model.classes == "machine_type":
        return [clip.machine_type for clip in clips]
    return [f"{clip.machine_type}/{clip.machine_id}" for clip in clips]


def stratified_order(classes: Sequence[str], validation_split: float, seed: int) -> tuple[np.ndarray, int]:
    """Indices of the clips, those to train on first, and how many these are.

    Of each class, ``validation_split`` of the clips, rounded down, drawn at random, come last.
    """
    rng = np.random.default_rng(seed)
    classes = np.asarray(classes)
    train, validation = [], []
    for name in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == name))
        n_validation = int(len(members) * validation_split)
        validation.append(np.sort(members[:n_validation]))
        train.append(np.sort(members[n_validation:]))
    n_train = sum(map(len, train))
    return np.concatenate(train + validation), n_train


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


# ---- training ----


class ClipTrainer(keras.Model):
    """Trains the network on one window of each clip in an epoch, cut out of the log-mel frames batch by batch.

    The frames are held once; ``fit`` is given indices of clips. A longer clip gives a window at a place drawn anew for
    each step; a shorter one is repeated until it fills the window.
    """

    def __init__(self, network: keras.Model, model: L2Softmax, log_mel: tf.Variable, seed: int):
        super().__init__()
        self.network, self.log_mel, self.seed = network, log_mel, seed
        self.frames, self.n_classes = network.input_shape[2], network.output_shape[-1]
        self.mixup = model.mixup
        self.margin = model.margin

    def set_clips(self, offsets: np.ndarray, labels: np.ndarray, order: np.ndarray) -> None:
        """Say where the clips are among the frames and of which class they are, in the order of their indices."""
        self.firsts = tf.constant(offsets[:-1][order], tf.int32)
        self.lengths = tf.constant(np.diff(offsets)[order], tf.int32)
        self.labels = tf.constant(labels[order], tf.int32)

    def call(self, inputs, training=False):
        """Logits."""
        return self.network(inputs, training=training)

    def examples(self, indices: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Windows (n, n_mels, frames, 1) and one-hot labels; ``places`` in [0, 1) say where in the clip."""
        lengths = tf.gather(self.lengths, indices)
        choices = tf.maximum(lengths - self.frames + 1, 1)
        starts = tf.cast(tf.floor(places * tf.cast(choices, tf.float32)), tf.int32)
        within = (starts[:, None] + tf.range(self.frames)) % lengths[:, None]
        windows = tf.gather(self.log_mel, tf.gather(self.firsts, indices)[:, None] + within)
        labels = tf.one_hot(tf.gather(self.labels, indices), self.n_classes)
        return tf.cast(tf.transpose(windows, (0, 2, 1))[..., None], tf.float32), labels

    def train_step(self, indices):
        """One step; all that is drawn at random follows from the seed and the number of the step."""
        seed = tf.stack([tf.constant(self.seed, tf.int64), tf.cast(self.optimizer.iterations, tf.int64)])
        places = tf.random.stateless_uniform(tf.shape(indices), seed)
        windows, labels = self.examples(indices, places)
        if self.mixup:
            windows, labels = self.mixed(windows, labels, seed)
        return super().train_step((windows, labels))

    def mixed(self, windows: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixup (Zhang et al. 2018): each example with its mirror image in the batch, in parts of Beta(a, a)."""
        gammas = tf.random.stateless_gamma((2, tf.shape(labels)[0]), seed, alpha=self.mixup)
        part = gammas[0] / tf.maximum(gammas[0] + gammas[1], 1e-30)
        of_window, of_label = part[:, None, None, None], part[:, None]
        windows = of_window * windows + (1 - of_window) * windows[::-1]
        return windows, of_label * labels + (1 - of_label) * labels[::-1]

    def test_step(self, indices):
        """Loss and accuracy of a validation batch, at the middle of each clip."""
        return super().test_step(self.examples(indices, tf.fill(tf.shape(indices), 0.5)))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Softmax cross-entropy; with a margin, that of ArcFace."""
        if self.margin:
            alpha = self.network.get_layer("embedding").alpha
            return tf.reduce_mean(margin_softmax_loss(y, y_pred, alpha=alpha, margin=self.margin))
        return super().compute_loss(x, y, y_pred, sample_weight, training)


def make_trainer(network: keras.Model, system: System, log_mel: tf.Variable, seed: int) -> ClipTrainer:
    """Trainer, compiled. On a CPU, XLA's convolutions take ten times as long as TensorFlow's own."""
    trainer = ClipTrainer(network, system.model, log_mel, seed)
    trainer.compile(
        training.make_optimizer(system.fit),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    return trainer


def settle_statistics(trainer: ClipTrainer, *, n_train: int, batch_size: int, seed: int) -> None:
    """Take the statistics of batch normalisation anew from training clips (Wu and Johnson 2021, PreciseBN).

    The moving statistics of training lag behind the weights; after a short training, what a network gives in inference
    has little to do with what it gave in training. Here each is the plain mean over batches of the trained network.
    """
    norms = [layer for layer in trainer.network._flatten_layers() if isinstance(layer, FusedBatchNormalization)]
    momentum = tf.Variable(0.0, trainable=False)

    @tf.function
    def pass_on(indices: tf.Tensor) -> None:
        windows, _ = trainer.examples(indices, tf.fill(tf.shape(indices), 0.5))
        trainer.network(windows, training=True)

    for layer in norms:
        layer.momentum = momentum
    n_batches = min(STATISTICS_BATCHES, max(1, n_train // batch_size))  # whole ones
    batches = training.epoch_batches(n_train, seed=seed, batch_size=batch_size, shuffle=True)
    for number, indices in enumerate(batches.take(n_batches)):
        momentum.assign(number / (number + 1))
        pass_on(indices)
    for layer in norms:
        layer.momentum = BATCH_NORM_MOMENTUM


# ---- embeddings ----


def clip_windows(log_mel: np.ndarray, frames: int) -> np.ndarray:
    """The windows by which a clip is scored, shape (n_windows, n_mels, frames).

    A longer clip is covered by as few windows as can be, evenly spaced from its first frame to its last; a shorter one
    is repeated until it fills one window.

    Parameters
    ----------
    log_mel : ndarray, shape (n_frames, n_mels)
    """
    n = len(log_mel)
    starts = np.linspace(0, max(n - frames, 0), math.ceil(n / frames)).round().astype(int)
    rows = (starts[:, None] + np.arange(frames)) % n
    return log_mel[rows].transpose(0, 2, 1)


def embed(network: keras.Model, log_mels: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n_clips, 1280) and logarithms of the class probabilities (n_clips, n_classes) of clips.

    Both are means over a clip's windows; an embedding is brought back to the norm that its windows have.

    Parameters
    ----------
    log_mels : log-mel energies of each clip [dB], shape (n_frames, n_mels)
    """
    frames = network.input_shape[2]
    both = keras.Model(network.inputs, [network.get_layer("embedding").output, network.outputs[0]])

    @tf.function
    def outputs(windows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        vectors, logits = both([tf.cast(windows[..., None], tf.float32)], training=False)
        return vectors, tf.nn.log_softmax(logits)

    def batches() -> Iterator[np.ndarray]:
        waiting = np.empty((0, *network.input_shape[1:3]), FRAME_TYPE)
        for log_mel in log_mels:
            windows = clip_windows(log_mel.astype(FRAME_TYPE), frames)  # as the training clips
            counts.append(len(windows))
            waiting = np.concatenate([waiting, windows])
            while len(waiting) >= EMBEDDING_BATCH:
                yield waiting[:EMBEDDING_BATCH]
                waiting = waiting[EMBEDDING_BATCH:]
        if len(waiting):  # filled up, so that the network is traced once
            yield np.pad(waiting, ((0, EMBEDDING_BATCH - len(waiting)), (0, 0), (0, 0)))

    counts: list[int] = []  # windows of each clip
    parts = [[part.numpy() for part in outputs(batch)] for batch in batches()]
    embeddings, log_probabilities = (np.concatenate(part)[: sum(counts)] for part in zip(*parts, strict=True))
    if not (np.isfinite(embeddings).all() and np.isfinite(log_probabilities).all()):
        raise UserError("the network gives values that are not finite numbers: delete it and train anew")
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    mean_embeddings = np.add.reduceat(embeddings, firsts)
    norms = np.linalg.norm(embeddings[firsts], axis=1) / np.linalg.norm(mean_embeddings, axis=1)
    means = np.add.reduceat(log_probabilities.astype(np.float64), firsts) / np.array(counts)[:, None]
    return mean_embeddings * norms[:, None], means


# ---- detectors ----


def clip_scores(
    model: L2Softmax,
    trained: "TrainingEmbeddings",
    clips: Sequence[Clip],
    embeddings: np.ndarray,
    log_probabilities: np.ndarray,
) -> np.ndarray:
    """Anomaly scores of clips of one machine type, shape (n_clips,), float64; higher = more anomalous.

    With ``softmax`` the score is minus the logarithm of the probability of the clip's own class.
    """
    if model.score == "softmax":
        columns = [trained.classes.index(name) for name in class_names(model, clips)]
        return -log_probabilities[np.arange(len(clips)), columns]
    scores = np.empty(len(clips))
    test_groups = np.array([clip.machine_id if model.lof_per == "machine_id" else "" for clip in clips])
    for group, train in trained.groups(model.lof_per).items():
        members = test_groups == group
        if members.any():
            scores[members] = detectors.outlier_scores(
                train, embeddings[members], score=model.score, n_neighbors=model.n_neighbors, metric=model.metric
            )
    return scores


# ---- training embeddings on disk ----


@dataclass(frozen=True)
class TrainingEmbeddings:
    """What the detectors of one machine type are fitted to."""

    embeddings: np.ndarray  # (n_clips, 1280)
    machine_ids: np.ndarray  # (n_clips,), text
    classes: list[str]  # of the network's logits

    def groups(self, lof_per: str) -> dict[str, np.ndarray]:
        """Embeddings that share a detector: by machine ID, or all of them under an empty name."""
        if lof_per == "machine_type":
            return {"": self.embeddings}
        return {str(name): self.embeddings[self.machine_ids == name] for name in np.unique(self.machine_ids)}

    def save(self, path: Path) -> None:
        """Write as npz, without pickles."""
        np.savez(path, embeddings=self.embeddings, machine_ids=self.machine_ids, classes=np.array(self.classes, str))


def embeddings_path(folder: Path, machine_type: str) -> Path:
    """File of the embeddings of a machine type's training clips."""
    return folder / f"embeddings_{machine_type}.npz"


def load_embeddings(folder: Path, record: dict, machine_type: str) -> TrainingEmbeddings:
    """Read what :meth:`TrainingEmbeddings.save` has written for the network of ``record``."""
    path = embeddings_path(folder, machine_type)
    if path.name not in record["files"]:
        raise UserError(
            f"{path}: missing; the classifier in {folder} was trained without clips of {machine_type}. "
            "Train it on all machine types that are to be scored, or name others with --machine-type"
        )
    kinds = {"embeddings": ("f", 2), "machine_ids": ("U", 1), "classes": ("U", 1)}
    stored = training.read_arrays(training.checked_file(folder, record, path.name), kinds)
    return TrainingEmbeddings(stored["embeddings"], stored["machine_ids"], stored["classes"].tolist())


# ---- the functions that the scripts call ----


def work(system: System, clips: dict[str, list[Clip]]) -> int:
    """Progress steps that ``train`` takes: each clip is read, seen once an epoch, and embedded.

    The scripts ask before any system is trained: clips that cannot be trained on are refused here.
    """
    check_trainable(system.model, [clip for train_clips in clips.values() for clip in train_clips])
    return sum(map(len, clips.values())) * (2 + system.fit.epochs)


def train(run: training.Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Train one network on the clips of all machine types, except where there is one trained on just these.

    Parameters
    ----------
    clips : machine type -> training clips
    """
    if distribution.is_distributed(run.strategy):
        raise UserError(
            f"distribution: {run.config.distribution}: {system.name} trains on one device. Set distribution: none for "
            "it, or name other systems with --system"
        )
    job = training.Job(run, system, NAME, [clip for train_clips in clips.values() for clip in train_clips])
    if job.is_done():
        job.skip(2 + system.fit.epochs)
        return
    classes = sorted(set(class_names(system.model, job.clips)))
    trainer, offsets, n_train = start_training(job, clips, classes)
    validation = None
    if n_train < len(job.clips):
        validation = tf.data.Dataset.range(n_train, len(job.clips)).batch(system.fit.batch_size)
    history = training.train(trainer.network, trainer, job, n_train=n_train, validation=validation)
    settle_statistics(trainer, n_train=n_train, batch_size=system.fit.batch_size, seed=run.config.seed)
    log_mels = (trainer.log_mel[first:end].numpy() for first, end in itertools.pairwise(offsets))
    embeddings, _ = embed(trainer.network, job.watch(log_mels))

    ends, writers = np.cumsum([len(train_clips) for train_clips in clips.values()]), {}
    for (machine_type, train_clips), end in zip(clips.items(), ends, strict=True):
        machine_ids = np.array([clip.machine_id for clip in train_clips])
        own = embeddings[end - len(train_clips) : end]
        name = embeddings_path(job.folder, machine_type).name
        writers[name] = TrainingEmbeddings(own, machine_ids, classes).save
    training.save_model(trainer.network, job, history, writers)


def start_training(
    job: training.Job, clips: dict[str, list[Clip]], classes: list[str]
) -> tuple[ClipTrainer, np.ndarray, int]:
    """Network with its start weights and the clips to train it on.

    Returns
    -------
    ClipTrainer
    offsets : ndarray, shape (n_clips + 1,), first frame of each clip in its ``log_mel``, and their number
    n_train : int, how many of its clips are to train on; the others are for validation
    """
    system, seed = job.system, job.run.config.seed
    keras.utils.clear_session()  # the layers' names count from the start: the same file whatever was built before
    keras.config.set_dtype_policy(system.fit.precision)
    keras.utils.set_random_seed(seed)
    offsets = features.clip_offsets(job.clips, system.feature)
    log_mel = tf.Variable(tf.zeros((int(offsets[-1]), system.feature.n_mels), FRAME_TYPE), trainable=False)
    statistics = BandStatistics(system.feature.n_mels)
    of_types = (features.log_mel_clips(own, system.feature, job.run.cache) for own in clips.values())
    for start, block in zip(offsets, job.watch(itertools.chain.from_iterable(of_types)), strict=False):
        log_mel[start : start + len(block)].assign(block.astype(FRAME_TYPE))
        statistics.add(block)
    mean, deviation = statistics.scaling(system.model.scaling)
    network = build(
        system.model,
        n_mels=system.feature.n_mels,
        frames=system.feature.frames,
        n_classes=len(classes),
        mean=mean,
        deviation=deviation,
    )
    names = class_names(system.model, job.clips)
    order, n_train = stratified_order(names, system.fit.validation_split, seed)
    trainer = make_trainer(network, system, log_mel, seed)
    trainer.set_clips(offsets, np.searchsorted(classes, names), order)
    return trainer, offsets, n_train


def check_trainable(model: L2Softmax, clips: Sequence[Clip]) -> None:
    """Raise UserError unless there are classes to tell apart and clips enough for the detectors."""
    classes = sorted(set(class_names(model, clips)))
    if len(classes) < 2:
        by_id = len({(clip.machine_type, clip.machine_id) for clip in clips}) > 1
        advice = ", or set model.classes: machine_id" if by_id else ""
        raise UserError(
            f"model.classes: {model.classes}: all training clips are of one class, {classes[0]}, and a classifier "
            f"needs two.\nAdd the training clips of other machines{advice}; an autoencoder does without"
        )
    groups = collections.Counter(
        clip.machine_type + (f"/{clip.machine_id}" if model.lof_per == "machine_id" else "") for clip in clips
    )
    few = [f"{name}: {count} training clips" for name, count in groups.items() if count <= model.n_neighbors]
    if few and model.score != "softmax":
        raise fault_list(
            f"model.n_neighbors: {model.n_neighbors}, and no more training clips than that",
            few,
            "Lower model.n_neighbors, add training clips, or set model.lof_per: machine_type or model.score: softmax",
        )
    bound = alpha_lower_bound(len(classes), BOUND_PROBABILITY)
    if model.alpha != "trained" and model.alpha < bound:
        logger.warning(
            "model.alpha: %g is too small for %d classes: a softmax probability of %g takes at least %.2f "
            "(Ranjan et al. 2017, eq. 8)",
            model.alpha,
            len(classes),
            BOUND_PROBABILITY,
            bound,
        )


def require(run: training.Run, system: System, clips: dict[str, list[Clip]]) -> None:
    """Raise UserError unless there is a finished classifier that can score these clips.

    Parameters
    ----------
    clips : machine type -> test clips
    """
    record = training.require_trained(run, system, NAME)
    model, faults = system.model, []
    for machine_type, test_clips in clips.items():
        training.check_sample_rate(record, test_clips)
        trained = load_embeddings(run.model_folder(system), record, machine_type)
        ids = sorted({clip.machine_id for clip in test_clips})
        by_id = model.classes == "machine_id" if model.score == "softmax" else model.lof_per == "machine_id"
        unknown = [name for name in ids if by_id and name not in trained.machine_ids]
        faults += [f"{machine_type}: {name}: no training clips" for name in unknown]
        if model.score != "softmax":
            faults += [
                f"{machine_type}{name and ' ' + name}: {len(train)} training clips, no more than model.n_neighbors"
                for name, train in trained.groups(model.lof_per).items()
                if name in ("", *ids) and len(train) <= model.n_neighbors
            ]
    if faults:
        raise fault_list(
            f"{system.name}: test clips that cannot be scored",
            faults,
            "Train on clips of these machines, lower model.n_neighbors, or set model.lof_per: machine_type",
        )


def made_by(run: training.Run, system: System, machine_type: str) -> list[Path]:
    """Files that stand for what scores the clips of a machine type: the record of the network over all of them."""
    return [training.record_path(run.model_folder(system), NAME)]


def anomaly_scores(run: training.Run, system: System, machine_type: str, clips: Sequence[Clip]) -> np.ndarray:
    """Scores of the clips of a machine type, shape (n_clips,); see :func:`clip_scores`."""
    folder = run.model_folder(system)
    network = training.load_finished(run, system, NAME)
    trained = load_embeddings(folder, training.require_trained(run, system, NAME), machine_type)

    def watched() -> Iterator[np.ndarray]:
        for log_mel in features.log_mel_clips(clips, system.feature, run.cache):
            run.progress.update()
            yield log_mel

    embeddings, log_probabilities = embed(network, watched())
    embedding.write_figure(
        run.result_folder(system.name) / f"embedding_{machine_type}.png",
        f"{system.name}, {machine_type}: embeddings",
        trained.embeddings,
        trained.machine_ids,
        embeddings,
        clips,
    )
    return clip_scores(system.model, trained, clips, embeddings, log_probabilities)
