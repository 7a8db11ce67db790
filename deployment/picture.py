"""Picture of one recording: score and threshold over time, above its log-mel energies."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import common
from audio import features
from audio.clips import Clip
from audio.settings import Feature
from deployment.detection import Verdict
from evaluation.figures import COLOURS, drawable, save

MAX_COLUMNS = 2000  # of log-mel energies
FREQUENCY_LABELS = 6
OF_KIND = {"normal": COLOURS[0], "anomaly": COLOURS[5]}


def plot(path: Path, verdicts: Sequence[Verdict], clips: Sequence[Clip], feature: Feature) -> None:
    """Draw what is said of the windows of a recording, ``clips``, into a file."""
    from matplotlib.figure import Figure

    title = f"{verdicts[0].recording}: {verdicts[0].machine_type} {verdicts[0].machine_id}"
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    _draw_scores(above, verdicts)
    above.set_title(drawable(title), loc="left")
    figure.colorbar(_draw_energies(below, verdicts, clips, feature), ax=below, label="log-mel energy [dB]")
    save(figure, path)


def _draw_scores(axes, verdicts: Sequence[Verdict]) -> None:
    for kind, colour in OF_KIND.items():
        axes.plot([], [], color=colour, linewidth=3, label=kind)
    for v in verdicts:
        ends = (v.start, v.start + v.duration)
        axes.plot(ends, [v.score] * 2, color=OF_KIND[v.verdict], linewidth=3, solid_capstyle="butt")
    axes.axhline(verdicts[0].threshold, color="black", linestyle="--", linewidth=1, label="threshold")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    axes.set_ylabel("anomaly score")


def _draw_energies(axes, verdicts: Sequence[Verdict], clips: Sequence[Clip], feature: Feature):
    """As fine as can be seen; where the last window overlaps the one before, it lies above it."""
    n_columns = max(1, MAX_COLUMNS // len(verdicts))
    blocks = []
    for log_mel in features.log_mel_clips(clips, feature, None):
        columns = np.array_split(log_mel, min(len(log_mel), n_columns))
        blocks.append(np.stack([column.mean(axis=0) for column in columns], axis=1))  # (n_mels, n_columns)
    limits = {"vmin": min(map(np.min, blocks)), "vmax": max(map(np.max, blocks))}
    for v, block in zip(verdicts, blocks, strict=True):
        extent = (v.start, v.start + v.duration, 0, feature.n_mels)
        image = axes.imshow(block, origin="lower", aspect="auto", interpolation="none", extent=extent, **limits)
    bands = np.linspace(0, feature.n_mels - 1, FREQUENCY_LABELS).round().astype(int)
    frequencies = band_centres(feature, clips[0].sample_rate)[bands]
    axes.set_yticks(bands + 0.5, [f"{frequency / 1000:.1f}" for frequency in frequencies])
    axes.set(xlabel="time [s]", ylabel="frequency [kHz]", xlim=(0, verdicts[-1].start + verdicts[-1].duration))
    return image


def band_centres(feature: Feature, sample_rate: int) -> np.ndarray:
    """Centre frequency of each mel band [Hz], (n_mels,)."""
    filters = common.mel_filters(sample_rate, feature.n_fft, feature.n_mels)
    bins = np.fft.rfftfreq(feature.n_fft, 1 / sample_rate)
    return (filters @ bins) / np.maximum(filters.sum(axis=1), np.finfo(np.float32).tiny)
