"""Verdicts on single recordings: found, checked, cut into windows, judged; as table, CSV, JSON and picture."""

import contextlib
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

from audio.clips import Clip, check_sound, parse_clip_name, wav_paths
from common import TRAINING_DATA, UserError, fault_list
from config import Classifier, Config, System
from detectors import decision
from storage.files import expanded, write_text
from training.families import family_of
from training.model_records import read_record
from training.workload import network_name
from years.year import Year

STANDARD_INPUT = "-"
AS_LONG = 1.1  # of the training clips' length: what is not longer is heard as one, as by 01_test.py

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """Clips that a system was trained on, as far as recordings must be like them."""

    n_samples: int  # of the usual one
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


# ---- what the system was trained on ----


def trained_clips(settings: Config, training_data: str, system: System, machine_type: str) -> Trained:
    """What a system was trained on for a machine type; of a fusion, its members.

    Raises
    ------
    UserError : if it has not been trained for the machine type, with what it has been trained for.
    """
    for member in system.members or [system]:
        folder = settings.model_folder(training_data, member.name)
        trained = _trained_clips(folder, member)
        if machine_type not in trained:
            split = "-d" if training_data == "dev" else f"-e --training-data {training_data}"
            types = {data: _trained_clips(settings.model_folder(data, member.name), member) for data in TRAINING_DATA}
            others = [f"--training-data {data}: {', '.join(found)}" for data, found in types.items() if found]
            raise UserError(
                f"{folder}: no finished model for {machine_type}. Train it (python 00_train.py {split} "
                f"--system {system.name} --machine-type {machine_type}), or name another with --machine-type, --system "
                f"or --training-data; models of {member.name} are there for {'; '.join(others) or 'none'}"
            )
    return trained[machine_type]


def _trained_clips(folder: Path, system: System) -> dict[str, Trained]:
    """Machine type -> its training clips, from the records of the models in ``folder`` that the system scores by.

    Those of another ``network_per`` may be there, too.
    """
    found = {}
    for path in sorted(folder.glob("record_*.yaml")):
        name = path.stem.removeprefix("record_")
        record = read_record(folder, name)
        for machine_type, n_samples in record.get("n_samples", {}).items():
            if name == (network_name(system, machine_type) if isinstance(system.model, Classifier) else machine_type):
                found[machine_type] = Trained(n_samples, record["sample_rate"])
    return found


# ---- recordings ----


def recordings(arguments: Sequence[str], standard_input: BinaryIO, folder: Path) -> dict[Path, str]:
    """Files to be judged -> what they are called; each once, in the order given.

    Parameters
    ----------
    arguments : paths of files and folders, or ``-``
    folder : what comes from standard input is put into it as a file
    """
    names: dict[Path, str] = {}
    for argument in dict.fromkeys(arguments):  # standard input can be read once
        if argument == STANDARD_INPUT:
            path = folder / "standard_input.wav"
            path.write_bytes(standard_input.read())
            names[path] = argument
        else:
            names |= {path: str(path) for path in _files(argument)}
    return names


def _files(argument: str) -> list[Path]:
    """Wav files that an argument means: a file, those of a folder, those that a pattern fits."""
    found = []
    for path in expanded(argument):
        if not path.exists():
            found_as = "" if path == Path(argument) else f"{path}: "
            raise UserError(f"{argument}: {found_as}no such file or folder (looked for {path.resolve()})")
        found += wav_paths(path) if path.is_dir() else [path]
    if not found:
        raise UserError(f"{argument}: no wav file in this folder")
    return found


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
            clip = check_sound(path, machine_type, "", None, min_samples=min_samples, channel=channel)
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
    """A recording longer than about ``n_samples`` as parts of that length, one after the other.

    The last one ends where the recording ends, and overlaps the one before where the length is no multiple.
    """
    if clip.n_samples <= AS_LONG * n_samples:
        return [clip]
    starts = [*range(0, clip.n_samples - n_samples, n_samples), clip.n_samples - n_samples]
    return [dataclasses.replace(clip, first=start, n_samples=n_samples) for start in starts]


# ---- verdicts ----


def with_machine_ids(
    clips: Sequence[Clip], trained_ids: Sequence[str], wanted: str | None, names: dict[Path, str], *, year: Year | None
) -> list[Clip]:
    """The clips with the machine ID ``wanted``, else that of their official names, else the only trained one.

    Parameters
    ----------
    names : file -> what the recording is called in messages
    year : of the challenge, whose names the clips may have; None: names say nothing of the machine

    Raises
    ------
    UserError : if there is none, or one without training clips.
    """
    known = ", ".join(trained_ids)
    if wanted and wanted not in trained_ids:
        raise UserError(f"--machine-id {wanted}: no training clips of it; there are some of {known}")
    found, faults = [], {}
    for clip in clips:
        machine_id = wanted or (trained_ids[0] if len(trained_ids) == 1 else None)
        if year and not wanted:
            with contextlib.suppress(ValueError):  # a name of another kind
                machine_id = parse_clip_name(clip.path.name, year).machine_id
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


def judge(run, system: System, clips: Sequence[Clip], machine_id: str | None, names: dict[Path, str]) -> list[Verdict]:
    """Score recordings, or windows of them, as 01_test.py does, and compare with the scores of the training clips.

    Parameters
    ----------
    run : training.Run
    clips : of one machine type
    machine_id : of all of them; None: see :func:`with_machine_ids`
    names : file -> what the recording is called in the verdicts
    """
    module, machine_type = family_of(system), clips[0].machine_type
    trained = module.training_scores(run, system, machine_type)
    trained_ids = np.unique(trained.machine_ids).tolist()
    year = run.config.challenge if run.config.names == "official" else None
    clips = with_machine_ids(clips, trained_ids, machine_id, names, year=year)
    module.require(run, system, {machine_type: clips})
    scores = module.anomaly_scores(run, system, machine_type, clips)
    thresholds = decision.of_training(trained, run.config, {clip.machine_id for clip in clips})
    for name in thresholds:
        _warn_of_few(f"{machine_type} {name}", len(trained.of(name)), run.config.decision_quantile)
    return [
        Verdict(
            names[clip.path],
            machine_type,
            clip.machine_id,
            clip.first / clip.sample_rate,
            clip.n_samples / clip.sample_rate,
            score,
            thresholds[clip.machine_id],
            decision.percentile(score, trained.of(clip.machine_id)),
            "anomaly" if decision.is_anomalous(score, thresholds[clip.machine_id]) else "normal",
        )
        for clip, score in zip(clips, scores.tolist(), strict=True)
    ]


def _warn_of_few(name: str, n_clips: int, quantile: float) -> None:
    """Say what a threshold of few training clips is worth: where twice the false alarms may come."""
    low, high = decision.expected_false_alarms(n_clips, quantile)
    if high > 2 * (1 - quantile):
        text = "%s: the threshold of %d training clips is rough: %.0f to %.0f %% false alarms are to be expected"
        logger.warning(text, name, n_clips, 100 * low, 100 * high)


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
    n_anomalous = sum(v.verdict == "anomaly" for v in verdicts)
    return "\n".join([*lines, f"{n_anomalous} of {len(verdicts)} anomalous"])


def write(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write the verdicts as the name's ending says; floats have the digits that give the same number again."""
    rows = [dataclasses.asdict(verdict) for verdict in verdicts]
    text = io.StringIO()
    if path.suffix == ".json":
        text.write(json.dumps(rows, indent=1) + "\n")
    else:
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, text.getvalue())
