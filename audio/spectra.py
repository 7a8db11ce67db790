"""Magnitude spectra of a waveform on a linear scale of frequency: of all of it, and of short windows.

They are an input of networks that hear the waveform (spectral_model.py), without mel bands and without a logarithm.
"""

from dataclasses import dataclass

import numpy as np

from audio.settings import Spectra
from common import UserError


@dataclass(frozen=True)
class Frames:
    """A spectrogram: its windows and the bins of their spectra that are heard."""

    window: int  # [samples]
    n_frames: int
    first_bin: int
    end_bin: int

    @property
    def hop(self) -> int:
        """From one window to the next [samples]."""
        return self.window // 2

    @property
    def shape(self) -> tuple[int, int]:
        """(n_frames, n_bins)."""
        return self.n_frames, self.end_bin - self.first_bin


@dataclass(frozen=True)
class Layout:
    """What the settings come to at a sample rate: all numbers of a clip stand one after the other."""

    n_samples: int  # of a waveform
    spectrum: int  # bins of the spectrum of all of it, 0 where it is not heard
    spectrograms: tuple[Frames, ...]
    subtract_mean: bool

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of each part: (n_bins,) of the spectrum, (n_frames, n_bins) of a spectrogram."""
        return [*([(self.spectrum,)] if self.spectrum else []), *(frames.shape for frames in self.spectrograms)]

    @property
    def width(self) -> int:
        """Numbers of a clip."""
        return sum(int(np.prod(shape)) for shape in self.shapes)


def layout(settings: Spectra, sample_rate: int) -> Layout:
    """Sizes of the spectra of a waveform; UserError, naming the key, where there would be none.

    Parameters
    ----------
    sample_rate : int [Hz]
    """
    n_samples = round(settings.duration * sample_rate)
    high = sample_rate / 2 if settings.high_frequency is None else settings.high_frequency
    if high > sample_rate / 2:
        raise UserError(f"spectra.high_frequency: {high:g}; clips of {sample_rate} Hz end at {sample_rate / 2:g} Hz")
    spectrograms = []
    for seconds in settings.windows:
        window = 2 * round(seconds * sample_rate / 2)
        if not 2 <= window <= n_samples:
            raise UserError(f"spectra.windows: {seconds:g}; expected two samples at least and at most the duration")
        first, end = int(np.ceil(settings.low_frequency * window / sample_rate)), int(high * window / sample_rate) + 1
        if end <= first:
            raise UserError(f"spectra.windows: {seconds:g}; no bin from {settings.low_frequency:g} to {high:g} Hz")
        spectrograms.append(Frames(window, 1 + (n_samples - window) // (window // 2), first, end))
    spectrum = n_samples // 2 if settings.spectrum else 0
    if not spectrum and not spectrograms:
        raise UserError("spectra: no spectrum and no windows; expected one of them")
    return Layout(n_samples, spectrum, tuple(spectrograms), settings.subtract_mean)


def fitted(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """A waveform cut, or repeated, to so many samples, as integers of 16 bits; (n_samples,)."""
    return np.resize(np.clip(np.round(waveform * 2**15), -(2**15), 2**15 - 1), n_samples).astype(np.int16)


def spectra(samples: np.ndarray, parts: Layout) -> np.ndarray:
    """All magnitudes of a waveform, one part after the other, (parts.width,), float32.

    Those of a transform over n samples are over the root of n, so that noise is as loud in each part. Of a spectrogram,
    each frequency's mean over time may be taken off.

    Parameters
    ----------
    samples : ndarray, shape (n_samples,), int16, see :func:`fitted`
    """
    import scipy.fft

    waveform, found = samples * np.float32(2**-15), []
    if parts.spectrum:
        found.append(np.abs(scipy.fft.rfft(waveform, norm="ortho"))[: parts.spectrum])
    for frames in parts.spectrograms:
        windows = np.lib.stride_tricks.sliding_window_view(waveform, frames.window)[:: frames.hop]
        bins = scipy.fft.rfft(windows * hann(frames.window), norm="ortho")[:, frames.first_bin : frames.end_bin]
        magnitudes = np.abs(bins)
        if parts.subtract_mean:
            magnitudes -= magnitudes.mean(axis=0)
        found.append(magnitudes.reshape(-1))
    return np.concatenate(found)


def hann(n: int) -> np.ndarray:
    """Hann's window, periodic; (n,), float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)).astype(np.float32)
