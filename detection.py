"""Verdicts on single recordings: found, checked, cut into windows, judged; as table, CSV, JSON and picture."""

import csv
import dataclasses
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

import common
import decision
import fonts
import records
from common import Clip, UserError, fault_list
from config import TRAINING_DATA, Config, Feature, System

STANDARD_INPUT = "-"
MAX_COLUMNS = 2000  # of the picture of log-mel energies
FREQUENCY_LABELS = 6

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """Clips that a system was trained on, as far as recordings must be like them."""

    n_samples: int  # of the longest
    sample_rate: int  # [Hz]


@dataclass(frozen=True)
class Verdict:
    """What a system says of a recording, or of a window of it; the fields of the output, in its order."""

    recording: str
    machine_type: str
    machine_id: str
    start: float  # [s]
    duration: float  # [s]
    score: float
    threshold: float
    percentile: float  # of the training clips: scores that are not above this one [%]
    verdict: str

    @property
    def is_anomalous(self) -> bool:
        """True where the score is above the threshold."""
        return self.verdict == "anomaly"


# ---- what the system was trained on ----


def trained_clips(settings: Config, training_data: str, system: System, machine_type: str) -> Trained:
    """What a system was trained on for a machine type; of a fusion, its members.

    Raises
    ------
    UserError : if it has not been trained for the machine type, with what it has been trained for.
    """
    members = [member.name for member in getattr(system, "members", ())]
    for name in members or [system.name]:
        trained = _trained_clips(settings.model_folder(training_data, name))
        if machine_type not in trained:
            split = "-d" if training_data == "dev" else f"-e --training-data {training_data}"
            raise UserError(
                f"{settings.model_folder(training_data, name)}: no finished model for {machine_type}. Train it "
                f"(python 00_train.py {split} --system {system.name} --machine-type {machine_type}), or name another "
                f"with --machine-type, --system or --training-data; models of {name} are there for "
                f"{_trained_types(settings, name) or 'none'}"
            )
    return trained[machine_type]


def _trained_clips(folder: Path) -> dict[str, Trained]:
    """Machine type -> its training clips, from the records of the models in ``folder``."""
    found = {}
    for path in sorted(folder.glob("record_*.yaml")):
        record = records.read_record(folder, path.stem.removeprefix("record_"))
        for machine_type, n_samples in record.get("n_samples", {}).items():
            found[machine_type] = Trained(n_samples, record["sample_rate"])
    return found


def _trained_types(settings: Config, name: str) -> str:
    """Machine types that a system has been trained for, in words."""
    types = {data: _trained_clips(settings.model_folder(data, name)) for data in TRAINING_DATA}
    return "; ".join(f"--training-data {data}: {', '.join(found)}" for data, found in types.items() if found)


# ---- recordings ----


def recordings(arguments: Sequence[str], standard_input: BinaryIO, folder: Path) -> dict[Path, str]:
    """Files to be judged -> what they are called; each once, in the order given.

    Parameters
    ----------
    arguments : paths of files and folders, or ``-``
    folder : what comes from standard input is put into it as a file
    """
    names: dict[Path, str] = {}
    for argument in arguments:
        if argument == STANDARD_INPUT:
            path = folder / "standard_input.wav"
            path.write_bytes(standard_input.read())
            names[path] = argument
        elif Path(argument).is_dir():
            found = common.wav_paths(Path(argument))
            if not found:
                raise UserError(f"{argument}: no wav file in this folder")
            names |= {path: str(path) for path in found}
        elif Path(argument).is_file():
            names[Path(argument)] = argument
        else:
            raise UserError(f"{argument}: no such file or folder (looked for {Path(argument).resolve()})")
    return names


def check_recordings(
    names: dict[Path, str],
    machine_type: str,
    trained: Trained,
    *,
    min_samples: int,
    channel: int | str | None,
) -> list[Clip]:  # without machine IDs, which become known later
    """Check the recordings by their headers and first samples.

    Parameters
    ----------
    names : file -> what it is called in messages
    min_samples : int [samples], the shortest recording that can be judged
    channel : the key of the YAML

    Raises
    ------
    UserError : naming every recording that cannot be judged, in one message.
    """
    clips, faults = [], []
    for path, name in names.items():
        try:
            clip = common.check_sound(path, machine_type, "", None, min_samples=min_samples, channel=channel)
            if clip.sample_rate != trained.sample_rate:
                raise ValueError(
                    f"{clip.sample_rate} Hz; the system was trained with {trained.sample_rate} Hz. Resample it, for "
                    f"example with: ffmpeg -i IN.wav -ar {trained.sample_rate} OUT.wav"
                )
            clips.append(clip)
        except (ValueError, OSError, RuntimeError) as error:  # soundfile's errors are RuntimeErrors
            faults.append(f"{name}: {error}")
    if faults:
        title = f"{len(faults)} of {len(names)} recordings cannot be judged"
        raise fault_list(title, faults, "Mend these, or leave them out.")
    return clips


def windows(clip: Clip, n_samples: int) -> list[Clip]:
    """A recording longer than ``n_samples`` as parts of that length, one after the other; the last ends where it ends.

    The last one overlaps the one before where the length is no multiple.
    """
    if clip.n_samples <= n_samples:
        return [clip]
    starts = [*range(0, clip.n_samples - n_samples, n_samples), clip.n_samples - n_samples]
    return [dataclasses.replace(clip, first=start, n_samples=n_samples) for start in starts]


# ---- verdicts ----


def with_machine_ids(
    clips: Sequence[Clip], trained_ids: Sequence[str], wanted: str | None, names: dict[Path, str], *, official: bool
) -> list[Clip]:
    """The clips with the machine ID ``wanted``, else that of their official names, else the only trained one.

    Parameters
    ----------
    names : file -> what the recording is called in messages
    official : False where names say nothing of the machine

    Raises
    ------
    UserError : if there is none, or one without training clips.
    """
    known = ", ".join(trained_ids)
    if wanted and wanted not in trained_ids:
        raise UserError(f"--machine-id {wanted}: no training clips of it; there are some of {known}")
    found, faults = [], {}
    for clip in clips:
        machine_id = wanted or (_named_id(clip.path.name) if official else None)
        machine_id = machine_id or (trained_ids[0] if len(trained_ids) == 1 else None)
        if machine_id not in trained_ids:
            faults[names[clip.path]] = f"{machine_id}, of which there are no training clips" if machine_id else "no ID"
        found.append(dataclasses.replace(clip, machine_id=machine_id or ""))
    if faults:
        raise fault_list(
            "Recordings whose names do not say which machine it is",
            [f"{name}: {fault}" for name, fault in faults.items()],
            f"Name it with --machine-id; there are training clips of {known}.",
        )
    return found


def _named_id(name: str) -> str | None:
    """Machine ID that an official name gives, None for other names."""
    try:
        return common.parse_clip_name(name)[0]
    except ValueError:
        return None


def judge(run, system: System, clips: Sequence[Clip], machine_id: str | None, names: dict[Path, str]) -> list[Verdict]:
    """Score recordings, or windows of them, as 01_test.py does, and compare with the scores of the training clips.

    Parameters
    ----------
    run : training.Run
    clips : of one machine type
    machine_id : of all of them; None: see :func:`with_machine_ids`
    names : file -> what the recording is called in the verdicts
    """
    module, machine_type = system.module, clips[0].machine_type
    trained = module.training_scores(run, system, machine_type)
    trained_ids = np.unique(trained.machine_ids).tolist()
    clips = with_machine_ids(clips, trained_ids, machine_id, names, official=run.config.names == "official")
    module.require(run, system, {machine_type: clips})
    scores = module.anomaly_scores(run, system, machine_type, clips)
    thresholds = decision.thresholds(
        trained.scores,
        trained.machine_ids,
        quantile=run.config.decision_quantile,
        method=run.config.decision,
        wanted={clip.machine_id for clip in clips},
    )
    for name in thresholds:
        _warn_of_few(f"{machine_type} {name}", len(trained.of(name)), run.config.decision_quantile)
    return [
        _verdict(names[clip.path], clip, float(score), thresholds[clip.machine_id], trained.of(clip.machine_id))
        for clip, score in zip(clips, scores, strict=True)
    ]


def _warn_of_few(name: str, n_clips: int, quantile: float) -> None:
    """Say what a threshold of few training clips is worth: where twice the false alarms may come."""
    low, high = decision.expected_false_alarms(n_clips, quantile)
    if high > 2 * (1 - quantile):
        logger.warning(
            "%s: the threshold of %d training clips is rough: %.0f to %.0f %% false alarms are to be expected",
            *(name, n_clips, 100 * low, 100 * high),
        )


def _verdict(name: str, clip: Clip, score: float, threshold: float, training_scores: np.ndarray) -> Verdict:
    return Verdict(
        recording=name,
        machine_type=clip.machine_type,
        machine_id=clip.machine_id,
        start=clip.first / clip.sample_rate,
        duration=clip.n_samples / clip.sample_rate,
        score=score,
        threshold=threshold,
        percentile=decision.percentile(score, training_scores),
        verdict="anomaly" if decision.is_anomalous(score, threshold) else "normal",
    )


# ---- output ----


def table(verdicts: Sequence[Verdict]) -> str:
    """Verdicts for the screen, and how many are anomalous."""
    width = max(len("recording"), *(len(verdict.recording) for verdict in verdicts))
    lines = [f"{'recording':{width}}   ID     start [s]       score   threshold  percentile  verdict"]
    lines += [
        f"{v.recording:{width}}  {v.machine_id}  {v.start:9.2f}  {v.score:10.5g}  {v.threshold:10.5g}  "
        f"{v.percentile:10.1f}  {v.verdict}"
        for v in verdicts
    ]
    n_anomalous = sum(verdict.is_anomalous for verdict in verdicts)
    return "\n".join([*lines, f"{n_anomalous} of {len(verdicts)} anomalous"])


def csv_text(verdicts: Sequence[Verdict]) -> str:
    """Verdicts as CSV with a header; floats have the digits that give the same number again."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(Verdict)])
    writer.writerows(dataclasses.astuple(verdict) for verdict in verdicts)
    return text.getvalue()


def json_text(verdicts: Sequence[Verdict]) -> str:
    """Verdicts as a JSON list of objects."""
    return json.dumps([dataclasses.asdict(verdict) for verdict in verdicts], indent=1) + "\n"


WRITERS = {".csv": csv_text, ".json": json_text}


def write(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write the verdicts in the format that the name's ending says."""
    common.write_text(path, WRITERS[path.suffix](verdicts))


# ---- picture ----


def plot(path: Path, verdicts: Sequence[Verdict], clips: Sequence[Clip], feature: Feature) -> None:
    """Draw score and threshold of one recording over time, above its log-mel energies.

    Parameters
    ----------
    verdicts : of its windows
    clips : these windows
    """
    from figures import DPI

    title = f"{verdicts[0].recording}: {verdicts[0].machine_type} {verdicts[0].machine_id}"
    with fonts.for_texts([title]):
        figure = _figure(fonts.drawable(title), verdicts, clips, feature)
        with common.write_whole(path) as beside:
            figure.savefig(beside, dpi=DPI)


def _figure(title: str, verdicts: Sequence[Verdict], clips: Sequence[Clip], feature: Feature):
    from matplotlib.figure import Figure

    import features
    from figures import COLOURS

    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    of_kind = {"normal": COLOURS[0], "anomaly": COLOURS[5]}
    for verdict in verdicts:
        ends = (verdict.start, verdict.start + verdict.duration)
        above.plot(ends, [verdict.score] * 2, color=of_kind[verdict.verdict], linewidth=3, solid_capstyle="butt")
    above.axhline(verdicts[0].threshold, color="black", linestyle="--", linewidth=1)
    for kind, colour in of_kind.items():
        above.plot([], [], color=colour, linewidth=3, label=kind)
    above.plot([], [], color="black", linestyle="--", linewidth=1, label="threshold")
    above.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    above.set_title(title, loc="left")
    above.set_ylabel("anomaly score")
    edges, columns = _columns(features.log_mel_clips(clips, feature, None), verdicts)
    image = below.pcolormesh(edges, np.arange(feature.n_mels + 1), columns.T, rasterized=True)
    figure.colorbar(image, ax=below, label="log-mel energy [dB]")
    bands = np.linspace(0, feature.n_mels - 1, FREQUENCY_LABELS).round().astype(int)
    frequencies = _band_centres(feature, clips[0].sample_rate)[bands]
    below.set_yticks(bands + 0.5, [f"{frequency / 1000:.1f}" for frequency in frequencies])
    below.set(xlabel="time [s]", ylabel="frequency [kHz]", xlim=(edges[0], edges[-1]))
    return figure


def _columns(log_mels, verdicts: Sequence[Verdict]) -> tuple[np.ndarray, np.ndarray]:
    """Log-mel energies (n_columns, n_mels) as fine as can be seen, and the edges [s] of the columns (n_columns + 1,).

    The last window counts from where the one before ends.
    """
    edges, columns = [np.zeros(1)], []
    for log_mel, verdict in zip(log_mels, verdicts, strict=True):
        end, covered = verdict.start + verdict.duration, edges[-1][-1]
        log_mel = log_mel[round(len(log_mel) * (covered - verdict.start) / verdict.duration) :]
        n = min(len(log_mel), max(1, MAX_COLUMNS // len(verdicts)))
        if n:
            columns += [part.mean(axis=0) for part in np.array_split(log_mel, n)]
            edges.append(np.linspace(covered, end, n + 1)[1:])
    return np.concatenate(edges), np.stack(columns)


def _band_centres(feature: Feature, sample_rate: int) -> np.ndarray:
    """Centre frequency of each mel band [Hz], (n_mels,)."""
    filters = common.mel_filters(sample_rate, feature.n_fft, feature.n_mels)
    bins = np.fft.rfftfreq(feature.n_fft, 1 / sample_rate)
    return (filters @ bins) / np.maximum(filters.sum(axis=1), np.finfo(np.float32).tiny)
