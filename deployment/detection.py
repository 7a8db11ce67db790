"""Verdicts on recordings, or on windows of them."""

import contextlib
import dataclasses
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audio import likeness
from audio.clips import Clip, parse_clip_name
from common import UserError, fault_list
from config import Config, System
from deployment.hearing import Hearing
from detectors import decision
from training.deviation import Deviation
from training.families import family_of
from training.model_records import counted
from training.usual import usual_clips
from years.year import Year

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What a system says of a recording, or of a window of it; the fields of the output, in its order."""

    recording: str
    machine_type: str
    machine_id: str
    channel: int | None  # None: not asked for
    start: float  # [s]
    duration: float  # [s]
    score: float
    threshold: float
    percentile: float  # of the training clips: scores that are not above this one [%]
    verdict: str


@dataclass(frozen=True)
class Session:
    """A trained system, and what it hears, in one call of 04_detect.py."""

    settings: Config
    training_data: str
    system: System
    hearing: Hearing

    @classmethod
    def of(cls, settings: Config, training_data: str, name: str | None, machine_type: str, **wanted) -> "Session":
        """That of the system ``name``; None: the YAML's. ``wanted``: see :meth:`Hearing.of`."""
        settings = dataclasses.replace(settings, cache_directory=None)  # nothing is heard twice
        system, *others = settings.select([name] if name else None)
        if others:
            raise UserError(f"--system: name one of {', '.join(one.name for one in (system, *others))}")
        return cls(settings, training_data, system, Hearing.of(settings, training_data, system, machine_type, **wanted))

    @contextlib.contextmanager
    def judge(self, n_windows: int = 0) -> Iterator["Judge"]:
        """The judge, with a progress bar of so many windows, if any."""
        from training.run import Run, progress_bar  # TensorFlow: after all that can be wrong was checked

        with progress_bar(n_windows, self.settings.fit.verbose if n_windows else 0) as bar:
            yield Judge(Run(self.settings, self.training_data, bar), self.system, self.hearing)


def with_machine_ids(
    clips: Sequence[Clip], trained_ids: Sequence[str], names: dict[Path, str], *, year: Year | None
) -> tuple[list[Clip], list[UserError]]:
    """The clips with the machine ID that they have, else that of their official names, else the only trained one.

    Those of machines without training clips are left out, and an error names them. ``names``: see :class:`Judge`;
    ``year``: of the challenge, whose names the clips may have; None: names say nothing of the machine.
    """
    found, faults = [], {}
    for clip in clips:
        machine_id = clip.machine_id or (trained_ids[0] if len(trained_ids) == 1 else None)
        if year and not clip.machine_id:
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

    Of its methods ``windows`` are recordings or parts of them; ``names``: file -> what the recording is called.

    Parameters
    ----------
    run : training.Run

    Raises
    ------
    UserError : if there are no training clips of a machine that was named
    """

    def __init__(self, run, system: System, hearing: Hearing):
        self.run, self.hearing = run, hearing
        self.system = counted(run.config, run.training_data, system, hearing.machine_type)
        self.trained = family_of(system).training_scores(run, system, hearing.machine_type)
        self.machine_ids = np.unique(self.trained.machine_ids).tolist()
        self.usual = usual_clips(run, system, hearing.machine_type)
        self.thresholds: dict[str, float] = {}  # of the machines that were met
        self.told: set[str] = set()  # in what recordings were unlike the training clips
        for machine_id in hearing.machine_ids:
            if machine_id not in self.machine_ids:
                known = ", ".join(self.machine_ids)
                raise UserError(f"--machine-id {machine_id}: no training clips of it; there are some of {known}")

    def require_machine_id(self) -> None:
        """Raise UserError where sound without a name may be of several machines."""
        if not self.hearing.machine_ids and len(self.machine_ids) > 1:
            raise UserError(f"Name the machine with --machine-id; there are {', '.join(self.machine_ids)}")

    def usable(
        self, windows: Sequence[Clip], names: dict[Path, str], *, repeat: bool = True
    ) -> tuple[list[Clip], list[UserError]]:
        """The windows that the system can say something of, with their machine IDs, and errors that name the others.

        Recordings unlike the training clips are warned of; with ``repeat=False`` once in each way and channel.
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
        kinds = defaultdict(list)
        for clip in windows if self.usual else ():
            kind = "recordings" if self.hearing.channels is None else f"recordings in channel {clip.channel}"
            kinds[kind].append(clip)
        for text in [line for kind in kinds for line in likeness.misfits(kinds[kind], self.usual, kind, names)]:
            way = text.partition(":")[0]
            if repeat or way not in self.told:
                logger.warning("%s", text)
            self.told.add(way)
        config = self.run.config
        year = config.challenge if config.names == "official" else None
        found, unknown = with_machine_ids(windows, self.machine_ids, names, year=year)
        return found, errors + unknown

    def verdicts(self, windows: Sequence[Clip], names: dict[Path, str]) -> list[Verdict]:
        """Score windows that are :meth:`usable`, as 01_test.py does, and compare with the training clips' scores."""
        self._meet([clip for clip in windows if clip.machine_id not in self.thresholds])
        scores = family_of(self.system).anomaly_scores(self.run, self.system, self.hearing.machine_type, windows)
        return [
            Verdict(
                names[clip.path],
                self.hearing.machine_type,
                clip.machine_id,
                None if self.hearing.channels is None else clip.channel,
                clip.first / clip.sample_rate,
                clip.n_samples / clip.sample_rate,
                score,
                self.thresholds[clip.machine_id],
                decision.percentile(score, self.trained.of(clip.machine_id)),
                "anomaly" if decision.is_anomalous(score, self.thresholds[clip.machine_id]) else "normal",
            )
            for clip, score in zip(windows, scores.tolist(), strict=True)
        ]

    def deviations(self, windows: Sequence[Clip]) -> list[Deviation]:
        """Where each window is unlike the training clips; empty where that cannot be told."""
        return family_of(self.system).deviations(self.run, self.system, self.hearing.machine_type, windows)

    def _meet(self, clips: Sequence[Clip]) -> None:
        """Check that clips of new machine IDs can be scored, and have thresholds for them."""
        if not clips:
            return
        machine_type, config = self.hearing.machine_type, self.run.config
        family_of(self.system).require(self.run, self.system, {machine_type: clips})
        met = decision.of_training(self.trained, config, {clip.machine_id for clip in clips})
        for name in met:
            _warn_of_few(f"{machine_type} {name}", len(self.trained.of(name)), config.decision_quantile)
        self.thresholds |= met


def _warn_of_few(name: str, n_clips: int, quantile: float) -> None:
    """Say what a threshold of few training clips is worth: where twice the false alarms may come."""
    low, high = decision.expected_false_alarms(n_clips, quantile)
    if high > 2 * (1 - quantile):
        text = "%s: the threshold of %d training clips is rough: %.0f to %.0f %% false alarms are to be expected"
        logger.warning(text, name, n_clips, 100 * low, 100 * high)
