"""What a model gets of a clip, as blocks of the YAML."""

from typing import Annotated, Literal

from pydantic import AfterValidator, StrictBool
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from storage.blocks import KEYS, filled, number, whole

PARTS = ("slow", "fast", "statistics")  # of a descriptor


@dataclass(frozen=True, config=KEYS)
class Feature:
    """Log-mel energies, as the official baseline's ``feature`` block."""

    n_mels: whole(1, 4096)
    frames: whole(1)  # in one input of the model
    n_fft: whole(2, 2**20, multiple_of=2)  # [samples]
    hop_length: whole(1)  # [samples]
    power: number(ge=0.1, le=8)  # the energies of loud and silent clips stay numbers, also in 16 bits
    pad_mode: Literal["constant", "reflect"] = "constant"

    @property
    def min_samples(self) -> int:
        """Length of the shortest clip that gives one input [samples]."""
        return max(1, (self.frames - 1) * self.hop_length)


@dataclass(frozen=True, config=KEYS)
class Modulation:
    """A modulation spectrum: how strongly and how fast the envelopes of frequency bands go up and down."""

    n_bands: whole(1)
    low_frequency: number(gt=0)  # [Hz]
    high_frequency: number(gt=0) | None  # [Hz]; null: half the sample rate
    window: number(gt=0, le=10)  # [s]
    hop: number(gt=0, le=10)  # [s]
    power: whole(1, 2)  # of the envelopes
    n_modulations: whole(1)
    low_modulation: number(gt=0)  # [Hz]
    high_modulation: number(gt=0)  # [Hz]
    segment: number(gt=0, le=60)  # [s]


@dataclass(frozen=True, config=KEYS)
class Spectra:
    """Magnitude spectra of a waveform (see spectra.py), for the networks that hear neither frames nor descriptors."""

    duration: number(gt=0, le=60)  # [s] longer clips are cut to it, shorter ones repeated
    spectrum: StrictBool  # of the whole waveform
    windows: tuple[number(gt=0, le=10), ...]  # [s] of spectrograms, half of a window from one to the next
    low_frequency: number(ge=0)  # [Hz] of spectrograms
    high_frequency: number(gt=0) | None  # [Hz]; null: half the sample rate
    subtract_mean: StrictBool  # of each frequency of a spectrogram, over time


def _each_once(group: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(group)) < len(group):
        raise PydanticCustomError("expected", "each part once in a group")
    return group


@dataclass(frozen=True, config=KEYS)
class Descriptor:
    """Numbers that describe a whole clip (see descriptors.py), for the systems that do not look at log-mel frames.

    ``statistics`` are of the log-mel energies of the system's ``feature`` block.
    """

    # In groups, see neighbor_model.
    parts: filled(tuple[Annotated[filled(tuple[Literal[PARTS], ...]), AfterValidator(_each_once)], ...])
    level: number(ge=0, le=1)  # of ``statistics``: share of the clip's overall level in that of a band
    slow: Modulation
    fast: Modulation
