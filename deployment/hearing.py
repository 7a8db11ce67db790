"""What can be judged of a recording: checked, channel by channel, and cut into windows."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audio import wav
from audio.clips import Clip, check_sound
from common import TRAINING_DATA, UserError, training_command
from config import Classifier, Config, System
from training.model_records import counted, read_record
from training.workload import network_name

UNUSABLE = (ValueError, OSError, RuntimeError)  # what a recording is refused by; soundfile's errors are RuntimeErrors
AS_LONG = 1.1  # of the training clips' length: what is not longer is heard as one, as by 01_test.py


@dataclass(frozen=True)
class Hearing:
    """What recordings must be like to be judged by a trained system, and which of their channels are."""

    machine_type: str
    n_samples: int  # of the usual training clip
    sample_rate: int  # [Hz], of all of them
    min_samples: int  # of the shortest recording that can be judged
    channel: int | str | None = None  # the key of the YAML
    channels: tuple[int, ...] | None = None  # each is a recording of its own; (): all there are; None: ``channel`` is
    machine_ids: tuple[str, ...] = ()  # of all channels, or one of each; (): the recordings' names say it

    @classmethod
    def of(cls, settings: Config, training_data: str, system: System, machine_type: str, **wanted) -> "Hearing":
        """That of a system; of a fusion, its members'. ``wanted``: ``channels``, ``machine_ids``.

        Raises UserError if it has not been trained for the machine type, with what it has been trained for.
        """
        for member in counted(settings, training_data, system, machine_type).members or [system]:
            folder = settings.model_folder(training_data, member.name)
            trained = _trained_clips(folder, member)
            if machine_type not in trained:
                types = {one: _trained_clips(settings.model_folder(one, member.name), member) for one in TRAINING_DATA}
                others = [f"--training-data {one}: {', '.join(found)}" for one, found in types.items() if found]
                raise UserError(
                    f"{folder}: no finished model for {machine_type}. Train it ({training_command(training_data)} "
                    f"--system {system.name} --machine-type {machine_type}), or name another with --machine-type, "
                    f"--system or --training-data; models of {member.name} are there for {'; '.join(others) or 'none'}"
                )
        return cls(machine_type, *trained[machine_type], system.min_samples, settings.channel, **wanted)

    @property
    def wanted(self) -> Sequence[int | str | None]:
        """The channels that are judged, as keys of the YAML; empty: all."""
        return [self.channel] if self.channels is None else self.channels

    def require(self, sample_rate: int, n_channels: int) -> None:
        """Raise ValueError for another sample rate than that of the training, and where a channel is not there."""
        if sample_rate != self.sample_rate:
            raise ValueError(
                f"{sample_rate} Hz; the system was trained with {self.sample_rate} Hz. Resample it, for example with: "
                f"ffmpeg -i IN.wav -ar {self.sample_rate} OUT.wav"
            )
        for channel in self.wanted:
            wav.require_channel(n_channels, channel)

    def heard(self, path: Path) -> tuple[list[Clip], list[str]]:
        """What is to be judged of a wav file, a clip for each channel, and what is wrong with the rest.

        Where the machine ID is not told it is left empty.
        """
        try:
            _, sample_rate, n_channels = wav.check(path, min_samples=self.min_samples, channel="mean")
            self.require(sample_rate, n_channels)
        except UNUSABLE as error:
            return [], [str(error)]
        clips, faults = [], defaultdict(list)
        for place, channel in enumerate(self.wanted or range(n_channels)):
            machine_id = self.machine_ids[place if len(self.machine_ids) > 1 else 0] if self.machine_ids else ""
            options = {"min_samples": self.min_samples, "channel": channel}
            try:
                clip = check_sound(path, self.machine_type, machine_id, None, **options)
            except UNUSABLE as error:
                faults[str(error)].append(channel)
                continue
            if self.channels is not None:  # also that of a file of one has a number; what is dead beside it is told
                clip = dataclasses.replace(clip, channel=channel, profile=dataclasses.replace(clip.profile, dead=0))
            clips.append(clip)
        if not clips and len(faults) == 1:
            return [], [*faults]
        return clips, [f"channel {', '.join(map(str, where))}: {fault}" for fault, where in faults.items()]


def _trained_clips(folder: Path, system: System) -> dict[str, tuple[int, int]]:
    """Machine type -> samples and sample rate of its usual training clip, by the records in a system's ``folder``.

    Those of another ``network_per`` may be there, too.
    """
    found = {}
    for path in sorted(folder.glob("record_*.yaml")):
        name = path.stem.removeprefix("record_")
        record = read_record(folder, name)
        for machine_type, n_samples in record.get("n_samples", {}).items():
            if name == (network_name(system, machine_type) if isinstance(system.model, Classifier) else machine_type):
                found[machine_type] = n_samples, record["sample_rate"]
    return found


def windows(clips: Sequence[Clip], n_samples: int) -> list[Clip]:
    """Clips, those longer than about ``n_samples`` as parts of that length, one after the other.

    The last one ends where the recording ends, and overlaps the one before where the length is no multiple.
    """
    found = []
    for clip in clips:
        last = clip.n_samples - n_samples
        starts = [0] if clip.n_samples <= AS_LONG * n_samples else [*range(0, last, n_samples), last]
        length = clip.n_samples if len(starts) == 1 else n_samples
        found += [dataclasses.replace(clip, first=start, n_samples=length) for start in starts]
    return found
