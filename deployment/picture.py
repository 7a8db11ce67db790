"""A recording's picture: score and threshold over time, log-mel energies, and where it is unlike the training clips."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from audio import features
from audio.bands import mel_edges
from audio.clips import Clip
from audio.settings import Feature
from deployment import unusual
from deployment.detection import Verdict
from evaluation.figures import COLOURS, drawable, save
from training.deviation import Deviation

MAX_COLUMNS = 2000  # of what is drawn over time
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)  # [kHz], of which those are drawn that lie in the bands
FAR_APART = 100  # times the lowest score or threshold: what is higher than that is drawn on a logarithmic axis
OF_KIND = {"normal": COLOURS[0], "anomaly": COLOURS[5]}


def plot(
    path: Path, verdicts: Sequence[Verdict], clips: Sequence[Clip], feature: Feature, found: Sequence[Deviation]
) -> None:
    """Draw what is said of the windows of a recording, ``clips``, into a file; ``found``: what is unusual of each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 9 if found else 6), layout="constrained")
    above, below, *last = figure.subplots(3 if found else 2, 1, height_ratios=(2, 3, 3)[: 3 if found else 2])
    _draw_scores(above, verdicts)
    above.sharex(below)
    above.tick_params(labelbottom=False)
    edges = mel_edges(feature, clips[0].sample_rate)
    energies = _draw_bands(below, verdicts, features.log_mel_clips(clips, feature, None), edges)
    figure.colorbar(energies, ax=below, label="log-mel energy [dB]")
    if found:
        number = unusual.worst(verdicts, found)
        worst, window = found[number], verdicts[number]
        _frame_ranges(below, window, worst, edges)
        if worst.errors is None:
            image = _draw_weights(last[0], worst)
            label = f"weight [{worst.unit}]"
        else:
            rows = (np.sqrt(np.maximum(one.errors, 0)) for one in found)
            image = _draw_bands(last[0], verdicts, rows, worst.edges, cmap="magma")
            _frame_ranges(last[0], window, worst, worst.edges)
            label = "error beyond that in training [dB]"
        figure.colorbar(image, ax=last[0], label=label)
    said = unusual.words(verdicts, found)
    (last[0] if found else below).set_title(said, loc="left", fontsize="medium", wrap=True)
    save(figure, path)


def _draw_scores(axes, verdicts: Sequence[Verdict]) -> None:
    first = verdicts[0]
    for kind, colour in OF_KIND.items():
        axes.plot([], [], color=colour, linewidth=3, label=kind)
    for v in verdicts:
        ends = (v.start, v.start + v.duration)
        axes.plot(ends, [v.score] * 2, color=OF_KIND[v.verdict], linewidth=3, solid_capstyle="butt")
    axes.axhline(first.threshold, color="black", linestyle="--", linewidth=1, label="threshold")
    values = [first.threshold, *(v.score for v in verdicts)]
    if 0 < FAR_APART * min(values) < max(values):
        axes.set_yscale("log")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    channel = "" if first.channel is None else f", channel {first.channel}"
    axes.set_title(drawable(f"{first.recording}: {first.machine_type} {first.machine_id}{channel}"), loc="left")
    axes.set_ylabel("anomaly score")


def _draw_bands(axes, verdicts: Sequence[Verdict], rows: Iterable[np.ndarray], edges: np.ndarray, **how):
    """Draw (n_frames, n_mels) of each window, as fine as can be seen; the last one lies above what it overlaps."""
    n_columns = max(1, MAX_COLUMNS // len(verdicts))
    blocks = []
    for of_window in rows:
        columns = np.array_split(of_window, min(len(of_window), n_columns))
        blocks.append(np.stack([column.mean(axis=0) for column in columns], axis=1))  # (n_mels, n_columns)
    limits = {"vmin": min(map(np.nanmin, blocks)), "vmax": max(map(np.nanmax, blocks))}
    for v, block in zip(verdicts, blocks, strict=True):
        image = _image(axes, block, (v.start, v.start + v.duration), edges, **limits, **how)
    axes.set(xlabel="time [s]", xlim=(0, verdicts[-1].start + verdicts[-1].duration))
    return image


def _image(axes, block: np.ndarray, ends: tuple[float, float], edges: np.ndarray, **how):
    """Draw (n_mels, n_columns) from one end to the other."""
    extent = (*ends, 0, len(block))
    image = axes.imshow(block, origin="lower", aspect="auto", interpolation="none", extent=extent, **how)
    shown = [tick for tick in TICKS if edges[0] <= 1000 * tick <= 1.05 * edges[-1]]
    places = np.interp(1000 * np.array(shown), edges, np.arange(len(edges)))
    axes.set_yticks(places, [f"{tick:g}" for tick in shown])
    axes.set_ylabel("frequency [kHz]")
    return image


def _frame_ranges(axes, window: Verdict, worst: Deviation, edges: np.ndarray) -> None:
    """Frame what the words name, in the window of which they speak."""
    from matplotlib.patches import Rectangle

    for one in unusual.ranges(worst):
        low, high = np.interp([one.low, one.high], edges, np.arange(len(edges)))
        beyond = len(edges) / 60  # the frame of a band shall not hide it
        how = {"fill": False, "edgecolor": "white"}
        axes.add_patch(Rectangle((window.start, low - beyond), window.duration, high - low + 2 * beyond, **how))


def _draw_weights(axes, deviation: Deviation):
    """Draw what weighs in a window: bands and, side by side, modulations, level and unrest."""
    aspects = [*dict.fromkeys(deviation.aspects.tolist())]
    weights = np.stack([deviation.by_band(aspect) for aspect in aspects], axis=1)  # (n_mels, n_aspects)
    image = _image(axes, weights, (-0.5, len(aspects) - 0.5), deviation.edges, cmap="magma", vmin=0)
    axes.set_xticks(range(len(aspects)), aspects)
    axes.set_xlabel("modulation, level, unrest")
    return image
