"""What a clip is like whatever the machine: level, bandwidth, gaps. Measured once, when its checksum is taken."""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import one_channel, read_samples, soundfile_library
from storage.files import write_text

VERSION = 2  # of what is measured: raise it when values change
SETTLED = 2_000_000_000  # [ns] a file changed less than this ago may change again within its time stamp's resolution
BLOCK = 1024  # [samples] of a spectrum, and of a gap
AT_ONCE = 256 * BLOCK  # [samples] that are read: a recording may be longer than the memory
HIGHEST = 8  # times full scale: 18 dB over it are nobody's gain
HEARD = 1e-8  # power of a bin of the spectrum, of the clip's: what is below is no sound but the filter of a converter
QUANTISED = 1e-12  # power of a bin: that of 16 bits with dither is half of it
AROUND = 17  # [bins] of which most are heard where there is sound: a tone alone may be the image of a low one, mirrored
CLIPPED = 0.1  # lowest peak of what was overdriven: a very quiet clip has few values


@dataclass(frozen=True)
class Profile:
    """Measures of a clip's waveform."""

    sound: int  # checksum of the samples, whatever the header, 64 bits
    level: float  # [dB] root mean square about the mean; 0: full scale
    offset: float  # mean of the samples
    cutoff: float  # [Hz] the highest frequency at which there is sound
    clipped: float  # share of samples at the highest or lowest value
    silent: float  # share of blocks of equal samples
    dead: int  # channels of the file of equal samples
    mixed: int  # channels of which the waveform is the mean


def measure(path: Path, channel: int | str | None) -> Profile:
    """Measure a wav file, block by block.

    Raises
    ------
    ValueError : if its sound cannot be used: constant, not finite, not in [-1, 1].
    """
    sums, extremes, spectrum, checks = np.zeros(3), [], np.zeros(BLOCK // 2 + 1), (0, 1)
    n_blocks, n_silent, first, alive = 0, 0, None, False
    window = np.sqrt(8 / 3) * np.hanning(BLOCK + 1)[:-1].astype(np.float32) / BLOCK  # of the noise's own power
    ignored = np.errstate(over="ignore", invalid="ignore")  # of samples that are refused below
    with soundfile_library().SoundFile(path) as file, ignored:
        sample_rate = file.samplerate
        while len(samples := read_samples(file, AT_ONCE)):
            first = samples[0] if first is None else first
            alive |= (samples != first).any(axis=0)
            waveform = np.ascontiguousarray(one_channel(samples, channel))
            sums += len(waveform), waveform.sum(dtype=np.float64), np.square(waveform, dtype=np.float64).sum()
            for value in {waveform.min(), waveform.max()}:
                extremes.append((value, np.count_nonzero(waveform == value)))
            checks = zlib.crc32(waveform, checks[0]), zlib.adler32(waveform, checks[1])
            blocks = waveform[: len(waveform) // BLOCK * BLOCK].reshape(-1, BLOCK)
            n_blocks += len(blocks)
            n_silent += np.count_nonzero(np.ptp(blocks, axis=1) == 0)
            spectrum += np.square(np.abs(np.fft.rfft(blocks * window))).sum(axis=0)
    low, high = min(extremes)[0], max(extremes)[0]
    _require_usable(low, high, np.isfinite(sums).all())
    mean = sums[1] / sums[0]
    n_extreme = sum(count for value, count in extremes if value in (low, high))
    power = sums[2] / sums[0] - mean**2
    is_heard = 2 * spectrum[3:] / max(n_blocks, 1) > max(HEARD * power, QUANTISED)  # the first: the mean
    around = np.lib.stride_tricks.sliding_window_view(np.pad(is_heard, AROUND // 2, mode="edge"), AROUND)
    heard = np.flatnonzero(around.sum(axis=1) > AROUND // 2)
    return Profile(
        sound=checks[0] << 32 | checks[1],
        level=round(float(10 * np.log10(max(power, 1e-20))), 2),
        offset=round(float(mean), 6),
        cutoff=(int(heard[-1]) + 3) * sample_rate / BLOCK if len(heard) else sample_rate / 2,
        clipped=round(n_extreme / sums[0], 6) if max(-low, high) >= CLIPPED else 0.0,
        silent=round(n_silent / max(n_blocks, 1), 6),
        dead=int(np.sum(~np.asarray(alive))),
        mixed=np.size(first) if channel == "mean" else 1,
    )


def _require_usable(low: float, high: float, is_finite: bool) -> None:
    """Raise ValueError for samples of which no score means anything."""
    if not is_finite:
        raise ValueError("has samples that are not finite numbers; replace or remove it")
    if low == high == 0:
        raise ValueError("silent: every sample is zero")
    if low == high:
        raise ValueError(f"constant: every sample is {low:.4g}, as from a dead microphone")
    if max(-low, high) > HIGHEST:
        raise ValueError(
            f"its samples reach to {max(-low, high):,.0f}; expected -1 to 1. Divide them, those of 16-bit integers by "
            "32768: ffmpeg -i IN.wav -af volume=1/32768 OUT.wav"
        )


# ---- each file is read once ----


def file_crc(path: Path) -> int:
    """CRC-32 of a whole file."""
    crc = 0
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            crc = zlib.crc32(block, crc)
    return crc


class KnownFiles:
    """CRC-32 and profile of each file of a folder of clips, kept in the cache by size and time of change.

    Parameters
    ----------
    channel : that is measured, the key of the YAML
    directory : folder of the cache; None: nothing is kept
    """

    def __init__(self, folder: Path, channel: int | str | None, directory: Path | None):
        measures = [field.name for field in dataclasses.fields(Profile)]
        facts = f"{VERSION} {measures} {channel} {folder.resolve()}"
        digest = hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()
        self.channel = channel
        self.path = directory / f"checksums_{digest[:32]}.json" if directory else None
        self.known: dict[str, list] = {}  # file name -> size, times of change [ns], checksum, profile
        self.fresh = False  # True where something became known
        if self.path:
            with contextlib.suppress(OSError, ValueError):  # none yet, or damaged
                own, content = self.path.read_bytes().split(b"\n", 1)
                if int(own) == zlib.crc32(content):
                    self.known = json.loads(content)

    def of(self, path: Path, stat: os.stat_result) -> tuple[int, Profile]:
        """Checksum and profile of a file of this size and time of change.

        Raises
        ------
        ValueError : if its sound cannot be used.
        """
        *before, crc, measures = self.known.get(path.name, [None, None])
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]  # the last cannot be set back
        if before == state:
            return crc, Profile(*measures)
        crc, profile = file_crc(path), measure(path, self.channel)
        if time.time_ns() - max(state[1:]) > SETTLED:
            self.known[path.name] = [*state, crc, dataclasses.astuple(profile)]
            self.fresh = True
        return crc, profile

    def keep(self) -> None:
        """Write what has become known; a cache that cannot be written costs time, not the run."""
        if self.path and self.fresh:
            content = json.dumps(self.known)
            with contextlib.suppress(OSError):
                write_text(self.path, f"{zlib.crc32(content.encode())}\n{content}")
