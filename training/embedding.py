"""Embeddings of clips by a trained classifier."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from common import UserError
from training.batches import filled_batches
from training.clip_trainer import FRAME_TYPE

EMBEDDING_BATCH = 32  # windows in one call of the network


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


def log_mel_examples(log_mels: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
    """The classifier's inputs of each clip, (n_windows, n_mels, frames, 1), rounded as the training clips are.

    Parameters
    ----------
    log_mels : log-mel energies of each clip [dB], shape (n_frames, n_mels)
    """
    for log_mel in log_mels:
        yield clip_windows(log_mel.astype(FRAME_TYPE), frames)[..., None]


def embed(network: keras.Model, examples: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n_clips, n_numbers) and logarithms of the class probabilities (n_clips, n_classes) of clips.

    Embeddings of several networks stand one after the other; of the logarithms it is their mean. Both are means over a
    clip's windows; an embedding is brought back to the norm that its windows have.

    Parameters
    ----------
    examples : the network's inputs of each clip, shape (n_windows, ...)
    """
    outputs = output_function(network)
    counts: list[int] = []  # windows of each clip
    batches = filled_batches(examples, EMBEDDING_BATCH, counts)
    parts = [[part.numpy() for part in outputs(batch)] for batch in batches]
    embeddings, log_probabilities = (np.concatenate(part)[: sum(counts)] for part in zip(*parts, strict=True))
    if not (np.isfinite(embeddings).all() and np.isfinite(log_probabilities).all()):
        raise UserError("the network gives values that are not finite numbers: delete it and train anew")
    return clip_embeddings(embeddings, counts), clip_means(log_probabilities, counts)


@functools.lru_cache(maxsize=4)
def output_function(network: keras.Model) -> Callable[[np.ndarray], tuple[tf.Tensor, tf.Tensor]]:
    """EMBEDDING_BATCH windows -> their embeddings and log probabilities, as TensorFlow compiles it once."""
    both = keras.Model(network.inputs, [network.get_layer("embedding").output, network.outputs[0]])

    @tf.function
    def outputs(windows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        vectors, logits = both([tf.cast(windows, tf.float32)], training=False)
        log_probabilities = tf.nn.log_softmax(logits)
        if len(logits.shape) == 3:  # of several networks
            log_probabilities = tf.reduce_mean(log_probabilities, axis=1)
        return tf.reshape(vectors, (EMBEDDING_BATCH, -1)), log_probabilities

    return outputs


def clip_embeddings(embeddings: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Mean over the windows of each clip, ``counts`` of them, brought back to their norm; (n_clips, n_numbers)."""
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    means = np.add.reduceat(embeddings, firsts)
    return means * (np.linalg.norm(embeddings[firsts], axis=1) / np.linalg.norm(means, axis=1))[:, None]


def clip_means(values: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Mean over the windows of each clip, (n_clips, n_numbers), float64."""
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    return np.add.reduceat(values.astype(np.float64), firsts) / np.array(counts)[:, None]
