"""Whether recordings are like those that a system was trained on: as long, as loud, as bright; or copies of these.

Scores depend on all of this, and no score tells.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audio.clips import Clip

PERCENTILES = (5, 50, 95)  # that training keeps of each measure
FEW, LONG = 3, 60  # clips, and [s]: recordings that nobody has cut
NAMED = 3  # clips in a line of a warning
OFFSET = 0.001  # of the mean: four times as much is a step at a clip's ends that descriptors hear
TOO_SHORT = 0.5  # of the training clips' length: up to it a descriptor tells the length, not the machine


@dataclass(frozen=True)
class Measure:
    """What clips are compared by."""

    of: Callable[[Clip], float]
    shown: str  # a value, with its unit
    fits: Callable[[float, float, float], tuple[float, float]]  # by the training clips' percentiles: lowest, highest
    low: str  # clips that have less
    high: str
    advice: str


NONE = -float("inf")  # there are none below
MEASURES = {
    "length": Measure(
        lambda clip: clip.n_samples / clip.sample_rate,
        "{:.1f} s",
        lambda low, median, high: (max(0.9 * low, median / 2), min(1.1 * high, 2 * median)),
        "are shorter than usual",
        "are longer than usual",
        "Record for as long, or cut all to one length: ffmpeg -i IN.wav -f segment -segment_time {usual:.3g} %03d.wav",
    ),
    "level": Measure(
        lambda clip: clip.profile.level,
        "{:.0f} dB",
        lambda low, median, high: (low - 6, high + 6),
        "are quieter than usual",
        "are louder than usual",
        "Record with the same gain, at the same distance",
    ),
    "offset": Measure(
        lambda clip: round(clip.profile.offset, 3) + 0.0,  # no -0
        "{:.1%} of full scale",
        lambda low, median, high: (low - max(OFFSET, median - low), high + max(OFFSET, high - median)),
        "have a mean that is lower than usual (DC offset)",
        "have a mean that is higher than usual (DC offset)",
        "Record with the same device, or shift it: ffmpeg -i IN.wav -af dcshift=0.01 OUT.wav (-0.01: down by 1 %)",
    ),
    "cutoff": Measure(
        lambda clip: clip.profile.cutoff / 1000,
        "{:.1f} kHz",
        lambda low, median, high: (low / 1.25, high * 1.25),
        "lack the highest frequencies, as after resampling or compression",
        "reach to higher frequencies than usual",
        "Record with the same device and coding",
    ),
    "clipped": Measure(
        lambda clip: clip.profile.clipped,
        "{:.0%} of the samples",
        lambda low, median, high: (NONE, min(high + 0.01, 0.5)),
        "",
        "are overdriven: they stand at the highest or lowest value",
        "Lower the gain",
    ),
    "silent": Measure(
        lambda clip: clip.profile.silent,
        "{:.0%} of the time",
        lambda low, median, high: (NONE, high + 0.1),
        "",
        "have gaps without any sound",
        "Look for what the recorder dropped, or cut these out",
    ),
    "dead": Measure(
        lambda clip: clip.profile.dead,
        "{:.0f}",
        lambda low, median, high: (NONE, high),
        "",
        "have dead channels, in which all samples are equal",
        "Connect the microphone, or set channel in the YAML to one that is alive",
    ),
    "mixed": Measure(
        lambda clip: clip.profile.mixed,
        "{:.0f}",
        lambda low, median, high: (low, high),
        "are the mean of fewer channels",
        "are the mean of more channels",
        "Record with as many microphones, or train with channel: 0, one of them",
    ),
}


def summary(clips: Sequence[Clip]) -> dict:
    """What training keeps of its clips of a machine type: percentiles of each measure, and each clip's checksum."""
    found = {
        name: [float(f"{value:.6g}") for value in np.percentile([*map(measure.of, clips)], PERCENTILES)]
        for name, measure in MEASURES.items()
    }
    return found | {"sounds": "".join(f"{clip.profile.sound:016x}" for clip in clips)}


def misfits(clips: Sequence[Clip], usual: Mapping, kind: str, names: Mapping[Path, str] | None = None) -> list[str]:
    """A line for each measure by which clips are unlike the training clips, with both values and what to do.

    Parameters
    ----------
    usual : :func:`summary` of the training clips
    kind : what the clips are called: training clips, test clips, recordings
    names : file -> what it is called; default: its path
    """
    lines = []
    for name, measure in MEASURES.items():
        low, median, high = usual[name]
        lowest, highest = measure.fits(low, median, high)
        values = {clip: measure.of(clip) for clip in clips}
        sides = (
            (measure.low, {clip: x for clip, x in values.items() if x < lowest}),
            (measure.high, {clip: x for clip, x in values.items() if x > highest}),
        )
        for word, odd in sides:
            if odd:
                found = _span(measure, min(odd.values()), max(odd.values()))
                n_files, n_odd = (len({clip.path for clip in of}) for of in (clips, odd))
                lines.append(
                    f"{n_odd} of {n_files} {kind} {word}: {found}; the training clips have "
                    f"{_span(measure, low, high)}. {measure.advice.format(usual=median)} ({_names(odd, names)})"
                )
    return lines


def _span(measure: Measure, low: float, high: float) -> str:
    """``2.0 s``, or ``1.5 to 2.0 s``."""
    texts = [measure.shown.format(value) for value in (low, high)]
    number, _, unit = texts[0].partition(" ")
    return texts[0] if texts[0] == texts[1] else f"{number} to {texts[1]}"


def _names(clips: Iterable[Clip], names: Mapping[Path, str] | None = None) -> str:
    names = sorted({(names or {}).get(clip.path, str(clip.path)) for clip in clips})
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def too_short(clips: Sequence[Clip], usual: Mapping) -> dict[Path, str]:
    """Files that are too short for a descriptor to be compared with those of the training clips, and why."""
    shortest = usual["length"][0]
    return {
        clip.path: f"{clip.n_samples / clip.sample_rate:.1f} s; the training clips have "
        f"{_span(MEASURES['length'], shortest, usual['length'][2])}"
        for clip in clips
        if clip.n_samples / clip.sample_rate <= TOO_SHORT * shortest
    }


def uncut(clips: Sequence[Clip]) -> list[str]:
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


def copies(clips: Sequence[Clip], kind: str, trained: str = "") -> list[str]:
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
