"""Waveforms batch by batch, and their spectra as audio/spectra.py has them, by TensorFlow: what is mixed is sound."""

import math

import numpy as np
import tensorflow as tf

from audio.spectra import Layout
from training.clip_trainer import AsTheyAre


class Waveforms(AsTheyAre):
    """The waveform of each clip; the network hears its spectra.

    Parameters
    ----------
    samples : ndarray, shape (n_clips, n_samples), int16, which may be mapped from a file
    order : ndarray, shape (n_heard,), the clips in the order of their indices
    """

    def __init__(self, samples: np.ndarray, order: np.ndarray, parts: Layout):
        self.samples, self.order, self.parts = samples, order, parts

    def take(self, indices: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """Waveforms (n, n_samples) in [-1, 1]; all of a clip, wherever the place."""
        rows = tf.numpy_function(self._rows, [indices], tf.int16, stateful=False)
        return tf.cast(tf.ensure_shape(rows, (None, self.parts.n_samples)), tf.float32) * 2**-15

    def _rows(self, indices: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.samples[self.order[indices]])

    def heard(self, waveforms: tf.Tensor) -> tf.Tensor:
        """Spectra (n, n_numbers) of waveforms; those of :func:`audio.spectra.spectra` within rounding."""
        found = []
        if self.parts.spectrum:
            magnitudes = tf.abs(tf.signal.rfft(waveforms))[:, : self.parts.spectrum]
            found.append(magnitudes / math.sqrt(self.parts.n_samples))
        for frames in self.parts.spectrograms:
            window, hop = frames.window, frames.hop
            bins = tf.signal.stft(waveforms, window, hop, fft_length=window)  # Hann's window, periodic
            magnitudes = tf.abs(bins[..., frames.first_bin : frames.end_bin]) / math.sqrt(window)
            if self.parts.subtract_mean:
                magnitudes -= tf.reduce_mean(magnitudes, axis=1, keepdims=True)
            found.append(tf.reshape(magnitudes, (-1, math.prod(frames.shape))))
        return tf.concat(found, axis=1)
