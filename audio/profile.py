"""What recordings are like whatever the machine: length, level, bandwidth; whether others are like them, or copies.

Scores depend on all of this, and no score tells. A clip is measured once, when its checksum is taken.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common import one_channel, read_samples, soundfile_library
from storage.files import write_text

if TYPE_CHECKING:
    from audio.clips import Clip

VERSION = 1  # of what is measured: raise it when values change
SETTLED = 2_000_000_000  # [ns] a file changed less than this ago may change again within its time stamp's resolution
BLOCK = 1024  # [samples] of a spectrum, and of a gap
AT_ONCE = 256 * BLOCK  # [samples] that are read: a recording may be longer than the memory
HIGHEST = 8  # times full scale: 18 dB over it are nobody's gain
HEARD = 1e-8  # power of a bin of the spectrum, of the clip's: what is below is no sound but the filter of a converter
QUANTISED = 1e-12  # power of a bin: that of 16 bits with dither is half of it
CLIPPED = 0.1  # lowest peak of what was overdriven: a very quiet clip has few values
PERCENTILES = (5, 50, 95)  # that training keeps of each measure
FEW, LONG = 3, 60  # clips, and [s]: recordings that nobody has cut
NAMED = 3  # clips in a line of a warning
TOO_SHORT = 0.5  # of the training clips' length: up to it a descriptor tells the length, not the machine


@dataclass(frozen=True)
class Profile:
    """Measures of a clip's waveform."""

    sound: int  # checksum of the samples, whatever the header, 64 bits
    level: float  # [dB] root mean square about the mean; 0: full scale
    cutoff: float  # [Hz] the highest frequency at which there is sound
    clipped: float  # share of samples at the highest or lowest value
    silent: float  # share of blocks of equal samples
    dead: int  # channels of the file of equal samples


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
    heard = np.flatnonzero(2 * spectrum[3:] / max(n_blocks, 1) > max(HEARD * power, QUANTISED))  # the first: the mean
    return Profile(
        sound=checks[0] << 32 | checks[1],
        level=round(float(10 * np.log10(max(power, 1e-20))), 2),
        cutoff=(int(heard[-1]) + 3) * sample_rate / BLOCK if len(heard) else sample_rate / 2,
        clipped=round(n_extreme / sums[0], 6) if max(-low, high) >= CLIPPED else 0.0,
        silent=round(n_silent / max(n_blocks, 1), 6),
        dead=int(np.sum(~np.asarray(alive))),
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
        facts = f"{VERSION} {channel} {folder.resolve()}"
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


# ---- are others like the training clips? ----


@dataclass(frozen=True)
class Measure:
    """What clips are compared by."""

    of: Callable[["Clip"], float]
    shown: str  # a value, with its unit
    lowest: Callable[[float, float], float]  # of the training clips' 5th percentile and median: what still fits
    highest: Callable[[float, float], float]  # of their 95th and median
    low: str  # clips that have less
    high: str
    advice: str


NONE = float("inf")
MEASURES = {
    "length": Measure(
        lambda clip: clip.n_samples / clip.sample_rate,
        "{:.1f} s",
        lambda low, median: max(0.9 * low, median / 2),
        lambda high, median: min(1.1 * high, 2 * median),
        "are shorter than usual",
        "are longer than usual",
        "Bring all to one length: ffmpeg -i IN.wav -f segment -segment_time {usual:.3g} %03d.wav",
    ),
    "level": Measure(
        lambda clip: clip.profile.level,
        "{:.0f} dB",
        lambda low, median: low - 6,
        lambda high, median: high + 6,
        "are quieter than usual",
        "are louder than usual",
        "Record with the same gain, at the same distance",
    ),
    "cutoff": Measure(
        lambda clip: clip.profile.cutoff / 1000,
        "{:.1f} kHz",
        lambda low, median: low / 1.25,
        lambda high, median: high * 1.25,
        "lack the highest frequencies, as after resampling or compression",
        "reach to higher frequencies than usual",
        "Record with the same device and coding",
    ),
    "clipped": Measure(
        lambda clip: clip.profile.clipped,
        "{:.0%} of the samples",
        lambda low, median: -NONE,
        lambda high, median: min(high + 0.01, 0.5),
        "",
        "are overdriven: they stand at the highest or lowest value",
        "Lower the gain",
    ),
    "silent": Measure(
        lambda clip: clip.profile.silent,
        "{:.0%} of the time",
        lambda low, median: -NONE,
        lambda high, median: high + 0.1,
        "",
        "have gaps without any sound",
        "Look for what the recorder dropped, or cut these out",
    ),
    "dead": Measure(
        lambda clip: clip.profile.dead,
        "{:.0f}",
        lambda low, median: -NONE,
        lambda high, median: high,
        "",
        "have dead channels, in which all samples are equal",
        "Connect the microphone, or set channel in the YAML to one that is alive",
    ),
}


def summary(clips: Sequence["Clip"]) -> dict:
    """What training keeps of its clips of a machine type: percentiles of each measure, and each clip's checksum."""
    found = {
        name: [float(f"{value:.6g}") for value in np.percentile([*map(measure.of, clips)], PERCENTILES)]
        for name, measure in MEASURES.items()
    }
    return found | {"sounds": "".join(f"{clip.profile.sound:016x}" for clip in clips)}


def misfits(clips: Sequence["Clip"], usual: Mapping, kind: str) -> list[str]:
    """A line for each measure by which clips are unlike the training clips, with both values and what to do.

    Parameters
    ----------
    usual : :func:`summary` of the training clips
    kind : what the clips are called: training clips, test clips, recordings
    """
    lines = []
    for name, measure in MEASURES.items():
        low, median, high = usual[name]
        values = {clip: measure.of(clip) for clip in clips}
        sides = (
            (measure.low, {clip: x for clip, x in values.items() if x < measure.lowest(low, median)}),
            (measure.high, {clip: x for clip, x in values.items() if x > measure.highest(high, median)}),
        )
        for word, odd in sides:
            if odd:
                found = _span(measure, min(odd.values()), max(odd.values()))
                n_files, n_odd = (len({clip.path for clip in of}) for of in (clips, odd))
                lines.append(
                    f"{n_odd} of {n_files} {kind} {word}: {found}; the training clips have "
                    f"{_span(measure, low, high)}. {measure.advice.format(usual=median)} ({_names(odd)})"
                )
    return lines


def _span(measure: Measure, low: float, high: float) -> str:
    """``2.0 s``, or ``1.5 to 2.0 s``."""
    texts = [measure.shown.format(value) for value in (low, high)]
    number, _, unit = texts[0].partition(" ")
    return texts[0] if texts[0] == texts[1] else f"{number} to {texts[1]}"


def _names(clips) -> str:
    names = sorted({str(clip.path) for clip in clips})
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def too_short(clips: Sequence["Clip"], usual: Mapping) -> list[str]:
    """Clips that are too short for a descriptor to be compared with those of the training clips, a line each."""
    shortest = usual["length"][0]
    return [
        f"{clip.path}: {clip.n_samples / clip.sample_rate:.1f} s; the training clips have "
        f"{_span(MEASURES['length'], shortest, usual['length'][2])}"
        for clip in clips
        if clip.n_samples / clip.sample_rate <= TOO_SHORT * shortest
    ]


def uncut(clips: Sequence["Clip"]) -> list[str]:
    """A line on long recordings in the place of many clips."""
    longest = max(clip.n_samples / clip.sample_rate for clip in clips)
    if len(clips) > FEW or longest < LONG:
        return []
    folder = clips[0].path.parent
    return [
        f"{len(clips)} training clips, of up to {longest:.0f} s: what differs from clip to clip is learnt, of thirty "
        "or more, as long as what is to be judged. Cut them, and move the uncut away: ffmpeg -i IN.wav -f segment "
        f"-segment_time 10 -c copy {folder}/part_%04d.wav"
    ]


def copies(clips: Sequence["Clip"], kind: str, trained: str = "") -> list[str]:
    """A line on clips with the samples of others of them, and one on those with the samples of training clips.

    Parameters
    ----------
    trained : checksums of the training clips, as :func:`summary` has them
    """
    known = {int(trained[start : start + 16], 16) for start in range(0, len(trained), 16)}
    alike = defaultdict(list)
    for clip in clips:
        alike[clip.profile.sound].append(clip)
    lines = []
    heard = [clip for sound, same in alike.items() if sound in known for clip in same]
    if heard:
        lines.append(
            f"{len(heard)} of {len(clips)} {kind} are copies of training clips, and their scores say nothing of new "
            f"sounds. Remove them from one of the two ({_names(heard)})"
        )
    groups = [same for same in alike.values() if len(same) > 1]
    if groups:
        pairs = "; ".join(" = ".join(str(clip.path) for clip in same[:NAMED]) for same in groups[:NAMED])
        lines.append(
            f"{sum(map(len, groups))} of {len(clips)} {kind} are copies of one another and count as often. Remove all "
            f"but one ({pairs}{'; ...' if len(groups) > NAMED else ''})"
        )
    return lines
