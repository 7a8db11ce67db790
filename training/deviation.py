"""Where a clip is unlike the training clips: in which bands of frequency, and in what."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Deviation:
    """How much each number of a clip, of a band and an aspect of it, adds to the score beyond what is usual."""

    system: str  # that says so; of a fusion a member
    edges: np.ndarray  # (n_mels + 1,) [Hz], of the mel bands, by which it is told
    low: np.ndarray  # (n_numbers,) [Hz], of each number's band
    high: np.ndarray
    aspects: np.ndarray  # (n_numbers,), text: "", a modulation such as "12 Hz", level, unrest
    weights: np.ndarray  # (n_numbers,), 0: as much as in the training clips
    unit: str  # of the weights
    errors: np.ndarray | None = None  # of an autoencoder, (n_frames, n_mels) [dB^2], the same over time
    note: str = ""  # of a fusion, why this member

    def by_band(self, aspect: str | None = None) -> np.ndarray:
        """Sum of the weights in each mel band, (n_mels,), of one aspect or of all.

        A number that is of more than one mel band counts for each by the part of its own band that lies there.
        """
        chosen = slice(None) if aspect is None else self.aspects == aspect
        low, high = self.low[chosen, np.newaxis], self.high[chosen, np.newaxis]
        shared = np.minimum(high, self.edges[1:]) - np.maximum(low, self.edges[:-1])
        widths = np.maximum(high - low, np.finfo(np.float64).tiny)
        return self.weights[chosen] @ (np.maximum(shared, 0) / widths)
