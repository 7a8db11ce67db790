"""Networks on the spectrum in full: the report's L2-softmax behind a branch for each resolution of a clip's waveform.

Beyond the report. One branch hears the spectrum of the whole clip, in which tones a tenth of a hertz apart differ; the
others spectrograms, which tell when. Both are linear in frequency and in magnitude. After Wilkinghoff, Design choices
for learning embeddings from auxiliary tasks for domain generalization in anomalous sound detection, ICASSP 2023, and
Fujimura et al., ASDKit, 2025.

metric_model.py trains and scores with them, as with its other networks.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
from keras import layers

from audio import features
from audio.clips import Clip
from audio.spectra import Layout, layout, spectra
from config import SpectralL2Softmax, System
from training import heads
from training.backbone import BATCH_NORM_MOMENTUM
from training.metric_layers import FusedBatchNormalization
from training.run import Job, Run
from training.waveforms import Waveforms

CONVOLUTIONS = ((256, 64), (64, 32), (16, 4))  # kernel and stride of each on the whole spectrum
SPECTRUM_CHANNELS = 128  # of each of them
SPECTRUM_UNITS = 4 * (128,)  # of the dense layers behind them
FIRST_KERNEL, POOL = 7, 3  # on a spectrogram
SCALE_CLIPS = 500  # training clips, at most, from which the scale of the inputs is taken


# ---- networks ----


def build(model: SpectralL2Softmax, parts: Layout, *, scales: Sequence[float], n_classes: int) -> keras.Model:
    """Networks of different start weights, each with a branch for each part of the spectra.

    Parameters
    ----------
    scales : what the magnitudes of each part are divided by

    Returns
    -------
    keras.Model : spectra (n, parts.width) -> logits (n, model.networks, n_classes); the output of its layer
        ``embedding`` is (n, model.networks, n_branches * model.embedding)
    """
    inputs = layers.Input((parts.width,))
    magnitudes = [
        layers.Rescaling(1 / scale, dtype="float32")(part)
        for part, scale in zip(split(inputs, parts), scales, strict=True)
    ]
    networks = [_network(model, magnitudes) for _ in range(model.networks)]
    keys = {"sub_centres": model.sub_centres, "margin": model.margin}
    return keras.Model(inputs, heads.joint(model, networks, n_classes, **keys))


def split(inputs: keras.KerasTensor, parts: Layout) -> list[keras.KerasTensor]:
    """(n, parts.width) -> each part in its shape, (n, n_bins) or (n, n_frames, n_bins)."""
    column, start, found = layers.Reshape((parts.width, 1), dtype="float32")(inputs), 0, []
    for shape in parts.shapes:
        size = math.prod(shape)
        cut = layers.Cropping1D((start, parts.width - start - size), dtype="float32")(column)
        found.append(layers.Reshape(shape, dtype="float32")(cut))
        start += size
    return found


def _network(model: SpectralL2Softmax, magnitudes: list[keras.KerasTensor]) -> keras.KerasTensor:
    """Embeddings of all branches, one after the other, (n, n_branches * model.embedding)."""
    branches = [(spectrum_branch if len(part.shape) == 2 else spectrogram_branch)(model, part) for part in magnitudes]
    return branches[0] if len(branches) == 1 else layers.Concatenate()(branches)


def spectrum_branch(model: SpectralL2Softmax, spectrum: keras.KerasTensor) -> keras.KerasTensor:
    """(n, n_bins) -> (n, model.embedding)."""
    h = layers.Reshape((*spectrum.shape[1:], 1))(spectrum)
    for kernel, stride in CONVOLUTIONS:
        convolution = layers.Conv1D(
            SPECTRUM_CHANNELS, kernel, stride, "same", activation="relu", **_without_bias(model)
        )
        h = convolution(h)  # of 80,000 bins: 1250, 40, 10
    h = layers.Flatten()(h)
    for units in SPECTRUM_UNITS:
        h = layers.Dense(units, **_without_bias(model))(h)
        h = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(h)
        h = layers.Activation("relu")(h)
    return layers.Dense(model.embedding, **_without_bias(model))(h)


def spectrogram_branch(model: SpectralL2Softmax, spectrogram: keras.KerasTensor) -> keras.KerasTensor:
    """(n, n_frames, n_bins) -> (n, model.embedding)."""
    n_frames, n_bins = spectrogram.shape[1:]
    h = layers.Reshape((n_frames, 1, n_bins))(spectrogram)
    h = _normalised(h, trained=False)  # each frequency; whatever follows it can scale itself
    h = layers.Reshape((n_frames, n_bins, 1))(h)
    first, *_ = model.filters
    h = layers.Conv2D(first, FIRST_KERNEL, 2, "same", **_without_bias(model))(h)
    h = layers.Activation("relu")(_normalised(h))
    h = layers.MaxPooling2D(POOL, 2, "same")(h)
    for number, filters in enumerate(model.filters):
        h = _residual(model, h, filters, stride=2 if number else 1)
        h = _residual(model, h, filters, stride=1)
    pool = layers.MaxPooling2D if model.over_time == "max" else layers.AveragePooling2D
    h = layers.Flatten()(pool((h.shape[1], 1))(h))  # (n, n_bins / 32 * filters)
    h = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(h)
    return layers.Dense(model.embedding, **_without_bias(model))(h)


def _residual(model: SpectralL2Softmax, h: keras.KerasTensor, filters: int, *, stride: int) -> keras.KerasTensor:
    """Two convolutions, beside what they are given."""
    convolution = functools.partial(layers.Conv2D, padding="same", **_without_bias(model))
    beside = h if h.shape[-1] == filters and stride == 1 else convolution(filters, 1, stride)(h)
    h = layers.Activation("relu")(_normalised(convolution(filters, 3, stride)(h)))
    h = _normalised(convolution(filters, 3)(h))
    return layers.Activation("relu")(layers.Add()([h, beside]))


def _normalised(h: keras.KerasTensor, *, trained: bool = True) -> keras.KerasTensor:
    """Batch normalisation; not ``trained``: nothing in it, so that no gradients are computed beyond it."""
    return FusedBatchNormalization(momentum=BATCH_NORM_MOMENTUM, center=trained, scale=trained)(h)


def _without_bias(model: SpectralL2Softmax) -> dict:
    """Arguments of each layer with weights."""
    return {"use_bias": False, "kernel_regularizer": keras.regularizers.L2(model.l2) if model.l2 else None}


# ---- what metric_model.py asks for ----


def preparation(run: Run, system: System, clips: Sequence[Clip]) -> Callable:
    """What makes a training of these clips, or of some of them: see ``metric_model.Prepare``."""
    rate = clips[0].sample_rate
    samples = features.mapped(clips, features.waveforms(system.spectra, rate), run.cache, run.watch)
    return functools.partial(training, samples, layout(system.spectra, rate))


def training(
    samples: np.ndarray, parts: Layout, job: Job, labels: np.ndarray, order: np.ndarray, n_train: int
) -> tuple[keras.Model, Waveforms, Iterator[np.ndarray]]:
    """Network with its start weights, the waveforms to train it on, and each clip's inputs in inference.

    Parameters
    ----------
    samples : ndarray, shape (n_clips, n_samples), int16
    labels : ndarray, shape (n_clips,)
    order : ndarray, shape (n_heard,), those that are used, the ones to train on first
    """
    heard = order[:n_train]
    with job.run.strategy.scope():
        network = build(
            job.system.model,
            parts,
            scales=scales(samples[np.sort(heard[:: -(-len(heard) // SCALE_CLIPS)])], parts),
            n_classes=int(labels.max()) + 1,
        )
    return network, Waveforms(samples, order, parts), (spectra(clip, parts)[None] for clip in samples)


def scales(samples: np.ndarray, parts: Layout) -> list[float]:
    """Root mean square of the magnitudes of each part over waveforms; the level of the recordings makes no difference.

    Parameters
    ----------
    samples : ndarray, shape (n_clips, n_samples), int16
    """
    ends = np.cumsum([math.prod(shape) for shape in parts.shapes])
    squares = np.zeros(len(ends))
    for clip in samples:
        squares += [np.square(part).mean() for part in np.split(spectra(clip, parts), ends[:-1])]
    return [*np.maximum(np.sqrt(squares / len(samples)), 1e-6).tolist()]


def clip_inputs(run: Run, system: System, clips: Sequence[Clip]) -> Iterator[np.ndarray]:
    """The network's inputs of each clip, with the progress shown."""
    return run.watch(features.blocks(clips, features.spectra(system.spectra, clips[0].sample_rate), None))


def facts(system: System, sample_rate: int) -> dict:
    """What the network hears of a clip, for other programs."""
    parts = layout(system.spectra, sample_rate)
    return {
        "spectra": {
            "how": "n_samples of the clip, which is repeated where it is shorter; abs(rfft) / sqrt(n) of all of them, "
            "the first spectrum_bins; then each spectrogram, frame by frame, without padding, times a periodic Hann "
            "window, abs(rfft) / sqrt(window), bins first_bin to end_bin - 1, less each bin's mean over the frames "
            "with subtract_mean",
            "n_samples": parts.n_samples,
            "spectrum_bins": parts.spectrum,
            "spectrograms": [{**dataclasses.asdict(one), "hop": one.hop} for one in parts.spectrograms],
            "subtract_mean": parts.subtract_mean,
        }
    }
