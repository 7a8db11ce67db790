"""Which frequencies [Hz] the bands and numbers of log-mel energies and descriptors are of."""

from dataclasses import dataclass

import numpy as np

import common
from audio.descriptors import gammatone_centres
from audio.settings import Descriptor, Feature, Modulation


def mel_centres(feature: Feature, sample_rate: int) -> np.ndarray:
    """Centre frequency of each mel band [Hz], (n_mels,)."""
    filters = common.mel_filters(sample_rate, feature.n_fft, feature.n_mels)
    bins = np.fft.rfftfreq(feature.n_fft, 1 / sample_rate)
    return (filters @ bins) / np.maximum(filters.sum(axis=1), np.finfo(np.float32).tiny)


def mel_edges(feature: Feature, sample_rate: int) -> np.ndarray:
    """Where each mel band ends and the next begins [Hz], (n_mels + 1,)."""
    return edges_between(np.maximum.accumulate(mel_centres(feature, sample_rate)))  # of an empty filter it is 0


def edges_between(centres: np.ndarray) -> np.ndarray:
    """Half way from each centre to the next, (n + 1,); the outermost as far beyond as on the other side."""
    if len(centres) == 1:
        return np.array([0, 2 * centres[0]])
    inner = (centres[:-1] + centres[1:]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])


@dataclass(frozen=True)
class Numbers:
    """What each number of a descriptor is of."""

    low: np.ndarray  # (n_numbers,) [Hz]
    high: np.ndarray
    aspects: np.ndarray  # (n_numbers,), text: a modulation such as "12 Hz", level, unrest


def numbers_of(descriptor: Descriptor, feature: Feature, sample_rate: int) -> Numbers:
    """The numbers of a descriptor, in their order."""
    parts = {
        "slow": _of_modulation(descriptor.slow, sample_rate),
        "fast": _of_modulation(descriptor.fast, sample_rate),
        "statistics": _table(mel_edges(feature, sample_rate), ["level", "unrest"], by_band=False),
    }
    tables = [parts[name] for group in descriptor.parts for name in group]
    return Numbers(*(np.concatenate(column) for column in zip(*tables, strict=True)))


def _of_modulation(s: Modulation, sample_rate: int) -> tuple[np.ndarray, ...]:
    centres, _ = gammatone_centres(s.n_bands, s.low_frequency, s.high_frequency or sample_rate / 2)
    modulations = np.geomspace(s.low_modulation, s.high_modulation, s.n_modulations)
    aspects = [f"{float(f'{modulation:.2g}'):g} Hz" for modulation in modulations]  # two digits, but not 1.3e+02
    return _table(edges_between(centres), aspects, by_band=True)


def _table(edges: np.ndarray, aspects: list[str], *, by_band: bool) -> tuple[np.ndarray, ...]:
    """Columns of :class:`Numbers`; all aspects of a band stand together, or with ``by_band`` False all bands of one."""
    n_bands = len(edges) - 1
    numbers = np.arange(n_bands * len(aspects))
    band, aspect = divmod(numbers, len(aspects)) if by_band else divmod(numbers, n_bands)[::-1]
    return edges[band], edges[band + 1], np.array(aspects)[aspect]
