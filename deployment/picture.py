"""A recording's picture: score and threshold over time, log-mel energies, and where it is unlike the training clips."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from audio import features
from audio.bands import mel_centres
from audio.clips import Clip
from audio.settings import Feature
from deployment import unusual
from deployment.detection import Verdict
from evaluation.figures import COLOURS, drawable, save
from training.deviation import Deviation

MAX_COLUMNS = 2000  # of what is drawn over time
FREQUENCY_LABELS = 6
OF_KIND = {"normal": COLOURS[0], "anomaly": COLOURS[5]}


def plot(
    path: Path, verdicts: Sequence[Verdict], clips: Sequence[Clip], feature: Feature, found: Sequence[Deviation]
) -> None:
    """Draw what is said of the windows of a recording, ``clips``, into a file.

    Parameters
    ----------
    found : of each window, see :func:`deployment.unusual.deviations`
    """
    from matplotlib.figure import Figure

    title = f"{verdicts[0].recording}: {verdicts[0].machine_type} {verdicts[0].machine_id}"
    figure = Figure(figsize=(10, 9 if found else 6), layout="constrained")
    above, below, *last = figure.subplots(3 if found else 2, 1, height_ratios=(2, 3, 3)[: 3 if found else 2])
    _draw_scores(above, verdicts)
    above.sharex(below)
    above.tick_params(labelbottom=False)
    above.set_title(drawable(title), loc="left")
    centres = mel_centres(feature, clips[0].sample_rate)
    energies = _draw_bands(below, verdicts, features.log_mel_clips(clips, feature, None), centres)
    figure.colorbar(energies, ax=below, label="log-mel energy [dB]")
    if found:
        _draw_deviations(figure, last[0], verdicts, found)
        last[0].set_title(unusual.words(verdicts, found), loc="left", fontsize="medium", wrap=True)
    else:
        below.set_title(unusual.words(verdicts, found), loc="left", fontsize="medium", wrap=True)
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


def _draw_bands(axes, verdicts: Sequence[Verdict], rows: Iterable[np.ndarray], centres: np.ndarray, **how):
    """Draw (n_frames, n_mels) of each window, as fine as can be seen; the last one lies above what it overlaps."""
    n_columns = max(1, MAX_COLUMNS // len(verdicts))
    blocks = []
    for of_window in rows:
        columns = np.array_split(of_window, min(len(of_window), n_columns))
        blocks.append(np.stack([column.mean(axis=0) for column in columns], axis=1))  # (n_mels, n_columns)
    limits = {"vmin": min(map(np.nanmin, blocks)), "vmax": max(map(np.nanmax, blocks))}
    for v, block in zip(verdicts, blocks, strict=True):
        extent = (v.start, v.start + v.duration, 0, len(centres))
        image = axes.imshow(block, origin="lower", aspect="auto", interpolation="none", extent=extent, **limits, **how)
    _label_frequencies(axes, centres)
    axes.set(xlabel="time [s]", xlim=(0, verdicts[-1].start + verdicts[-1].duration))
    return image


def _label_frequencies(axes, centres: np.ndarray) -> None:
    bands = np.linspace(0, len(centres) - 1, FREQUENCY_LABELS).round().astype(int)
    axes.set_yticks(bands + 0.5, [f"{frequency / 1000:.1f}" for frequency in centres[bands]])
    axes.set_ylabel("frequency [kHz]")


def _draw_deviations(figure, axes, verdicts: Sequence[Verdict], found: Sequence[Deviation]) -> None:
    """Of an autoencoder its errors over time, otherwise what weighs in the most unusual window."""
    deviation = found[unusual.worst(verdicts)]
    centres = (deviation.edges[:-1] + deviation.edges[1:]) / 2
    if deviation.errors is not None:
        image = _draw_bands(axes, verdicts, (np.sqrt(one.errors) for one in found), centres, cmap="magma")
        figure.colorbar(image, ax=axes, label="reconstruction error [dB]")
        return
    aspects = [*dict.fromkeys(deviation.aspects.tolist())]
    weights = np.stack([deviation.by_band(aspect) for aspect in aspects], axis=1)  # (n_mels, n_aspects)
    image = axes.imshow(
        weights,
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap="magma",
        vmin=0,
        extent=(-0.5, len(aspects) - 0.5, 0, len(weights)),
    )
    axes.set_xticks(range(len(aspects)), aspects)
    axes.set_xlabel("modulation, level, unrest")
    _label_frequencies(axes, centres)
    figure.colorbar(image, ax=axes, label=f"weight [{deviation.unit}]")
