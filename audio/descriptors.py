"""Waveform or log-mel energies of one clip -> a few hundred numbers that say what it sounds like. Pure functions."""

import functools
import sys

import numpy as np

from audio.settings import Modulation
from common import UserError

FLAT = 1e-3  # [dB] deviations are told apart above it; the rounding of log-mel energies is a hundredth of it
N_STATISTICS = 2  # that band_statistics gives of a band
SAMPLES_AT_ONCE = 2**16  # that are transformed: they and their spectra stay in the processor's cache


def band_statistics(log_mel: np.ndarray, *, level: float) -> np.ndarray:
    """Level and unrest of each mel band.

    Parameters
    ----------
    log_mel : ndarray, shape (n_mels, n_frames) [dB]
    level : float, share of the clip's overall level that is left in the bands' levels. 1: all of it; 0: none, the gain
        has no influence. The bands rise and fall together, and what they have in common counts ``n_mels`` times where
        distances are taken.

    Returns
    -------
    ndarray, shape (2, n_mels), float32: mean [dB], and log deviation of the second difference over the frames (natural
        logarithm of dB): how much a frame differs from what lies between its neighbours.

    Raises
    ------
    ValueError : if there is no frame.
    """
    if log_mel.ndim != 2 or not log_mel.size:
        raise ValueError(f"expected log-mel energies of shape (n_mels, n_frames), got {log_mel.shape}")
    mean = log_mel.mean(axis=1, dtype=np.float64)
    mean -= (1 - level) * mean.mean()
    bends = np.diff(log_mel, 2, axis=1) if log_mel.shape[1] > 2 else np.zeros_like(log_mel)
    return np.stack([mean, np.log(bends.std(axis=1, dtype=np.float64) + FLAT)]).astype(np.float32)


def modulation_spectrum(
    waveform: np.ndarray, sample_rate: int, settings: Modulation
) -> np.ndarray:  # (n_bands, n_modulations)
    """How strongly, and how fast, the envelope of each frequency band goes up and down.

    Parameters
    ----------
    waveform : ndarray, shape (n_samples,), in [-1, 1]
    sample_rate : int [Hz]
    settings : gammatone bands, evenly spaced on the scale of equivalent rectangular bandwidths; the short-time spectrum
        whose bands' envelopes are looked at; modulation bands, a constant factor apart; the stretch of an envelope that
        one transform covers, of which the next begins half a stretch later

    Returns
    -------
    ndarray, float32, natural logarithm of the mean energy; ``-36 * power`` in silence.

    Raises
    ------
    UserError : naming the band that the sample rate or the hop cannot hold.
    ValueError : if ``waveform`` is empty or not one-dimensional.

    Notes
    -----
    Falk et al., "A non-intrusive quality and intelligibility measure of reverberant and dereverberated speech", IEEE
    Transactions on Audio, Speech, and Language Processing 18(7), 2010; for machines Tiwari et al., DCASE 2020. Their
    band-passes of second order and Q = 2 are weights on the transform of the envelope here.
    """
    waveform, s = np.asarray(waveform, np.float32), settings
    if waveform.ndim != 1 or not waveform.size:
        raise ValueError(f"expected a waveform of shape (n_samples,), got {waveform.shape}")
    top = _highest_frequency(sample_rate, s.low_frequency, s.high_frequency)
    hop_length = max(1, round(s.hop * sample_rate))
    rate = sample_rate / hop_length  # [Hz] of the envelopes
    _require(s.high_modulation <= rate / 2, "high_modulation", s.high_modulation, rate / 2, "or a shorter hop")
    window_length = max(2, round(s.window * sample_rate))
    weights = _gammatone_weights(sample_rate, window_length, s.n_bands, s.low_frequency, top)
    if len(waveform) < window_length:
        waveform = np.pad(waveform, (0, window_length - len(waveform)))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, window_length)[::hop_length]
    length = max(4, round(s.segment * rate))  # [frames]
    gains = _modulation_gains(length, rate, s.n_modulations, s.low_modulation, s.high_modulation)
    energies = _modulation_energies(frames, weights, gains, length=length, power=s.power)
    return np.log(energies + sys.float_info.epsilon**s.power).astype(np.float32)


def _modulation_energies(
    frames: np.ndarray, weights: np.ndarray, gains: np.ndarray, *, length: int, power: int
) -> np.ndarray:  # (n_bands, n_modulations)
    """Mean energy of each modulation of each band's envelope, over segments of ``length`` frames.

    Parameters
    ----------
    frames : ndarray, shape (n_frames, window_length)
    weights : ndarray, shape (n_bins, n_bands), of the bands
    gains : ndarray, shape (1 + length // 2, n_modulations), of the modulations
    """
    starts = _segment_starts(len(frames), length)
    taper = _hann(min(length, len(frames)))
    energies = np.zeros((weights.shape[1], gains.shape[1]))
    envelopes = np.empty((weights.shape[1], 0), np.float32)
    done = 0  # frames whose envelopes have been computed
    for start in starts:
        end = min(start + length, len(frames))
        kept = envelopes[:, envelopes.shape[1] - (done - start) :]
        envelopes = np.concatenate([kept, _envelopes(frames[done:end], weights, power)], axis=1)
        done = end
        spectrum = _power_spectrum((envelopes - envelopes.mean(axis=1, keepdims=True)) * taper, length)
        energies += spectrum @ gains
    return energies * (2 / (len(starts) * length * np.sum(taper**2, dtype=np.float64)))


def _highest_frequency(sample_rate: int, low: float, high: float | None) -> float:
    """Upper end of the bands [Hz]; raises UserError where the clips have none."""
    nyquist = sample_rate / 2
    top = nyquist if high is None else high
    _require(top <= nyquist, "high_frequency", top, nyquist, f"clips of {sample_rate} Hz have nothing above that")
    _require(low < top, "low_frequency", low, top, "where the highest band is")
    return top


def _require(holds: bool, key: str, value: float, limit: float, reason: str) -> None:
    """Raise UserError unless a frequency is within its limit."""
    if not holds:
        raise UserError(f"{key}: {value:g} Hz; lower it: expected at most {limit:g} Hz, {reason}")


def _segment_starts(n_frames: int, length: int) -> np.ndarray:
    """First frame of each segment: half a length apart or a little less, so that the last ends with the clip."""
    beyond = max(0, n_frames - length)
    return np.round(np.linspace(0, beyond, 1 + -(-beyond // (length // 2)))).astype(int)


@functools.lru_cache(maxsize=8)
def _hann(length: int) -> np.ndarray:
    """Hann's window, shape (length,), float32; no value is 0, so that a single frame counts as well."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)


def gammatone_centres(n_bands: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre frequencies and bandwidths of the bands [Hz], (n_bands,) each, lowest first."""
    quality, narrowest = 9.26449, 24.7
    offset = quality * narrowest
    steps = np.arange(n_bands, 0, -1) / n_bands
    centres = (high + offset) * ((low + offset) / (high + offset)) ** steps - offset
    return centres, 1.019 * (centres / quality + narrowest)


@functools.lru_cache(maxsize=8)
def _gammatone_weights(sample_rate: int, window_length: int, n_bands: int, low: float, high: float) -> np.ndarray:
    """Magnitude response of gammatone filters of fourth order at the bins of the spectrum, lowest band first.

    Each band's weights have a sum of 1, so that levels do not depend on the distance of the bins. Bandwidths of
    Glasberg and Moore, filters of Slaney, Apple Technical Report 35, 1993; as weights on a spectrum: Ellis, 2009.

    Returns
    -------
    ndarray, shape (n_bins, n_bands), float32. The bins are no further apart than the narrowest band is wide, except
        where the window is too short to tell them apart.
    """
    centres, widths = gammatone_centres(n_bands, low, high)
    n_fft = _even_fast_length(max(window_length, min(2 * window_length, sample_rate / widths[0])))
    bins = np.fft.rfftfreq(n_fft, 1 / sample_rate)[:, np.newaxis]
    weights = (1 + ((bins - centres) / widths) ** 2) ** -2
    return (weights / weights.sum(axis=0)).astype(np.float32)


def _even_fast_length(least: float) -> int:
    """Even length that a transform is fast at."""
    import scipy.fft

    return 2 * scipy.fft.next_fast_len(int(np.ceil(least / 2)), real=True)


@functools.lru_cache(maxsize=8)
def _modulation_gains(length: int, rate: float, n_modulations: int, low: float, high: float) -> np.ndarray:
    """Power gain of second-order band-passes of Q = 2 at the bins of a segment's transform.

    Returns
    -------
    ndarray, shape (1 + length // 2, n_modulations), float32; nothing passes at 0 Hz.
    """
    centres = np.geomspace(low, high, n_modulations)
    bins = np.fft.rfftfreq(length, 1 / rate)[1:, np.newaxis]
    gains = 1 / (1 + 4 * (bins / centres - centres / bins) ** 2)
    return np.concatenate([np.zeros((1, n_modulations)), gains]).astype(np.float32)


def _envelopes(frames: np.ndarray, weights: np.ndarray, power: int) -> np.ndarray:
    """Envelope of each band, shape (n_bands, n_frames), float32, of frames of shape (n_frames, window_length)."""
    import scipy.fft

    n_frames, length = frames.shape
    n_bins, n_bands = weights.shape
    taper = _hann(length) / _hann(length).sum()
    envelopes = np.empty((n_frames, n_bands), np.float32)
    n_fft = 2 * (n_bins - 1)
    at_once = 1 + SAMPLES_AT_ONCE // n_fft
    padded = np.zeros((min(n_frames, at_once), n_fft), np.float32)
    for start in range(0, n_frames, at_once):
        block = frames[start : start + at_once]
        np.multiply(block, taper, out=padded[: len(block), :length])
        spectrum = scipy.fft.rfft(padded[: len(block)]).view(np.float32)
        spectrum *= spectrum
        energy = spectrum[:, 0::2] + spectrum[:, 1::2]
        np.matmul(energy if power == 2 else np.sqrt(energy), weights, out=envelopes[start : start + len(block)])
    return np.ascontiguousarray(envelopes.T)


def _power_spectrum(segments: np.ndarray, length: int) -> np.ndarray:
    """Squared magnitudes of the transforms of the rows, filled up with zeros to ``length``."""
    import scipy.fft

    spectrum = scipy.fft.rfft(segments, length).view(np.float32)
    spectrum *= spectrum
    return spectrum[:, 0::2] + spectrum[:, 1::2]
