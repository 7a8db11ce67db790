"""Verdicts on single recordings: found, checked, cut into windows, judged."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from audio import likeness
from audio.clips import Clip, check_sound, parse_clip_name, wav_paths
from common import TRAINING_DATA, UserError, fault_list, training_command
from config import Classifier, Config, System
from detectors import decision
from storage.files import expanded
from training.families import family_of
from training.model_records import counted, read_record
from training.usual import usual_clips
from training.workload import network_name
from years.year import Year

STANDARD_INPUT = "-"
UNUSABLE = (ValueError, OSError, RuntimeError)  # what a recording is refused by; soundfile's errors are RuntimeErrors
AS_LONG = 1.1  # of the training clips' length: what is not longer is heard as one, as by 01_test.py

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """Clips that a system was trained on, as far as recordings must be like them."""

    n_samples: int  # of the usual one
    sample_rate: int  # [Hz]

    def require_rate(self, sample_rate: int) -> None:
        """Raise ValueError for another sample rate than that of the training."""
        if sample_rate != self.sample_rate:
            raise ValueError(
                f"{sample_rate} Hz; the system was trained with {self.sample_rate} Hz. Resample it, for example with: "
                f"ffmpeg -i IN.wav -ar {self.sample_rate} OUT.wav"
            )


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
    for member in counted(settings, training_data, system, machine_type).members or [system]:
        folder = settings.model_folder(training_data, member.name)
        trained = _trained_clips(folder, member)
        if machine_type not in trained:
            types = {data: _trained_clips(settings.model_folder(data, member.name), member) for data in TRAINING_DATA}
            others = [f"--training-data {data}: {', '.join(found)}" for data, found in types.items() if found]
            raise UserError(
                f"{folder}: no finished model for {machine_type}. Train it ({training_command(training_data)} "
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


def check_recording(
    path: Path, *, machine_type: str, trained: Trained, min_samples: int, channel: int | str | None
) -> Clip:
    """Check a recording by its header and its samples; its machine ID becomes known later.

    Parameters
    ----------
    min_samples : int [samples], the shortest recording that can be judged
    channel : the key of the YAML

    Raises
    ------
    ValueError, OSError, RuntimeError : if it cannot be judged; soundfile's errors are RuntimeErrors.
    """
    clip = check_sound(path, machine_type, "", None, min_samples=min_samples, channel=channel)
    trained.require_rate(clip.sample_rate)
    return clip


def check_recordings(names: dict[Path, str], check: Callable[[Path], Clip]) -> tuple[list[Clip], list[UserError]]:
    """The recordings that can be judged, and an error that names all others, if there are any.

    Parameters
    ----------
    names : file -> what it is called in messages
    check : see :func:`check_recording`
    """
    clips, faults = [], []
    for path, name in names.items():
        try:
            clips.append(check(path))
        except UNUSABLE as error:
            faults.append(f"{name}: {error}")
    title = f"{len(faults)} of {len(names)} recordings cannot be judged"
    return clips, [fault_list(title, faults, "Mend these, or leave them out.")] if faults else []


def go_on(errors: Sequence[UserError], left: Sequence[Clip], *, keep_going: bool) -> None:
    """Raise the errors unless one is to ``keep_going`` with what is left; then they are raised at the end."""
    if errors and not (keep_going and left):
        raise UserError("\n".join(map(str, errors)))


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
) -> tuple[list[Clip], list[UserError]]:
    """The clips with the machine ID ``wanted``, else that of their official names, else the only trained one.

    Parameters
    ----------
    names : file -> what the recording is called in messages
    year : of the challenge, whose names the clips may have; None: names say nothing of the machine

    Returns
    -------
    list : the clips of machines that there are training clips of
    list : an error that names the others, if there are any
    """
    found, faults = [], {}
    for clip in clips:
        machine_id = wanted or (trained_ids[0] if len(trained_ids) == 1 else None)
        if year and not wanted:
            with contextlib.suppress(ValueError):  # a name of another kind
                machine_id = parse_clip_name(clip.path.name, year).machine_id
        if machine_id in trained_ids:
            found.append(dataclasses.replace(clip, machine_id=machine_id))
        else:
            faults[names[clip.path]] = f"{machine_id}, of which there are no training clips" if machine_id else "no ID"
    if not faults:
        return found, []
    error = fault_list(
        "Recordings whose names do not say which machine it is",
        [f"{name}: {fault}" for name, fault in faults.items()],
        f"Name it with --machine-id; there are training clips of {', '.join(trained_ids)}.",
    )
    return found, [error]


class Judge:
    """A system that is asked again and again: what it knows of the training clips is read once.

    Parameters
    ----------
    run : training.Run
    machine_id : of all recordings; None: see :func:`with_machine_ids`

    Raises
    ------
    UserError : if there are no training clips of the machine
    """

    def __init__(self, run, system: System, machine_type: str, machine_id: str | None):
        self.run, self.machine_type, self.machine_id = run, machine_type, machine_id
        self.system = counted(run.config, run.training_data, system, machine_type)
        self.trained = family_of(system).training_scores(run, system, machine_type)
        self.machine_ids = np.unique(self.trained.machine_ids).tolist()
        self.usual = usual_clips(run, system, machine_type)
        self.thresholds: dict[str, float] = {}  # of the machines that were met
        self.told: set[str] = set()  # in what recordings were unlike the training clips
        if machine_id and machine_id not in self.machine_ids:
            known = ", ".join(self.machine_ids)
            raise UserError(f"--machine-id {machine_id}: no training clips of it; there are some of {known}")

    def require_machine_id(self) -> None:
        """Raise UserError where sound without a name may be of several machines."""
        if not self.machine_id and len(self.machine_ids) > 1:
            raise UserError(f"Name the machine with --machine-id; there are {', '.join(self.machine_ids)}")

    def usable(
        self, windows: Sequence[Clip], names: dict[Path, str], *, repeat: bool = True
    ) -> tuple[list[Clip], list[UserError]]:
        """The windows that the system can say something of, with their machine IDs, and errors that name the others.

        Recordings unlike the training clips are warned of; with ``repeat=False`` once in each way.

        Parameters
        ----------
        names : file -> what the recording is called in messages
        """
        errors = []
        if self.usual and any(one.descriptor for one in (self.system, *self.system.members)):
            short = likeness.too_short(windows, self.usual)
            title = (
                f"Recordings at most half as long as the training clips, of which {self.system.name} can say nothing"
            )
            faults = [f"{names[path]}: {fault}" for path, fault in short.items()]
            advice = "Record for longer, leave these out, or train on clips of this length."
            errors += [fault_list(title, faults, advice)] if short else []
            windows = [clip for clip in windows if clip.path not in short]
        for text in likeness.misfits(windows, self.usual, "recordings", names) if self.usual else ():
            way = text.partition(":")[0]
            if repeat or way not in self.told:
                logger.warning("%s", text)
            self.told.add(way)
        config = self.run.config
        year = config.challenge if config.names == "official" else None
        found, unknown = with_machine_ids(windows, self.machine_ids, self.machine_id, names, year=year)
        return found, errors + unknown

    def verdicts(self, windows: Sequence[Clip], names: dict[Path, str]) -> list[Verdict]:
        """Score recordings, or windows of them, as 01_test.py does, and compare with the scores of the training clips.

        Parameters
        ----------
        windows : that are :meth:`usable`
        names : file -> what the recording is called in the verdicts
        """
        self._meet([clip for clip in windows if clip.machine_id not in self.thresholds])
        scores = family_of(self.system).anomaly_scores(self.run, self.system, self.machine_type, windows)
        return [
            Verdict(
                names[clip.path],
                self.machine_type,
                clip.machine_id,
                clip.first / clip.sample_rate,
                clip.n_samples / clip.sample_rate,
                score,
                self.thresholds[clip.machine_id],
                decision.percentile(score, self.trained.of(clip.machine_id)),
                "anomaly" if decision.is_anomalous(score, self.thresholds[clip.machine_id]) else "normal",
            )
            for clip, score in zip(windows, scores.tolist(), strict=True)
        ]

    def _meet(self, clips: Sequence[Clip]) -> None:
        """Check that clips of new machine IDs can be scored, and have thresholds for them."""
        if not clips:
            return
        family_of(self.system).require(self.run, self.system, {self.machine_type: clips})
        config = self.run.config
        met = decision.of_training(self.trained, config, {clip.machine_id for clip in clips})
        for name in met:
            _warn_of_few(f"{self.machine_type} {name}", len(self.trained.of(name)), config.decision_quantile)
        self.thresholds |= met


def _warn_of_few(name: str, n_clips: int, quantile: float) -> None:
    """Say what a threshold of few training clips is worth: where twice the false alarms may come."""
    low, high = decision.expected_false_alarms(n_clips, quantile)
    if high > 2 * (1 - quantile):
        text = "%s: the threshold of %d training clips is rough: %.0f to %.0f %% false alarms are to be expected"
        logger.warning(text, name, n_clips, 100 * low, 100 * high)
