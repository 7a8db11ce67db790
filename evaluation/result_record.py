"""What made the CSVs of a result folder: one small record per machine type, checked before their figures are used.

``record_<machine type>.yaml`` stands beside the CSVs of a machine type. It is written before them and says what they
must be, so that a run which was killed in between is found out; and as each machine type has its own, jobs that
score one machine type each can share a folder. A folder without any record is somebody else's, and taken as it is.
"""

import dataclasses
import logging
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import common
from audio.clips import Clip, check_clips, fingerprint, test_clip_paths, test_folders
from config import Config, System
from evaluation import score_files
from evaluation.metrics import Key
from storage import records
from storage.files import write_text
from storage.records import differences, file_digest, record_path
from training.families import OfficialModel
from training.model_records import configuration
from years.year import DEFAULT, KINDS, Year, read_year

ADVICE = "Score these machine types again with 01_test.py, or move the files that do not belong here away."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What made the CSVs of one machine type."""

    machine_type: str
    system: str
    split: str  # "dev" or "eval": whose test clips these are
    training_data: str  # "dev", "eval" or "dev+eval"
    settings: dict  # all that decides the scores, see `settings_of`
    models: dict[str, str]  # file that stands for a model, below the model directory -> SHA-256
    clips: int
    fingerprint: str  # of the list of test clips
    thresholds: dict[str, float]  # machine ID -> score above which a clip is called anomalous; empty: no decisions
    score_unit: str  # of scores and thresholds, docs/reference.md has them all
    result_file: str
    max_fpr: float
    files: dict[str, str]  # CSV -> SHA-256

    @property
    def year(self) -> int:
        """Of the challenge."""
        return self.settings.get("year", DEFAULT)

    @property
    def scored_by(self) -> str:
        """Name of the folder that such scores are in."""
        return common.scored_by(self.split, self.training_data)

    @property
    def any_names(self) -> bool:
        """Whether the names of the clips may be any, and say no machine ID."""
        return self.settings.get("names") == "any"


FIELDS = {name: typing.get_origin(kind) or kind for name, kind in typing.get_type_hints(Record).items()}


def settings_of(config: Config, system: System) -> dict:
    """All settings that decide a system's scores and decisions, as plain values."""
    decisions = {"decision": config.decision, "decision_quantile": config.decision_quantile}
    year = {"year": config.year} if config.year != DEFAULT else {}
    return _score_settings(config, system) | {"names": config.names} | year | decisions


def _score_settings(config: Config, system: System) -> dict:
    if isinstance(system.model, OfficialModel):
        feature = dataclasses.asdict(system.feature)
        return {"model": {"type": "official"}, "feature": feature, "channel": config.channel}
    settings = configuration(system, config)
    after_training = getattr(system.model, "AFTER_TRAINING", ())
    settings["model"] |= records.plain({name: getattr(system.model, name) for name in after_training})
    for member in system.members:
        settings["members"][member.name] = _score_settings(config, member)
    return settings


def model_directory(config: Config, system: System | None) -> Path:
    """Folder that holds the models of a system."""
    official = system and isinstance(system.model, OfficialModel)
    return system.model.directory if official else config.model_directory


def model_digests(paths: Iterable[Path], directory: Path) -> dict[str, str]:
    """Path below ``directory``, / between folders -> SHA-256 of the file."""
    return {path.relative_to(directory).as_posix(): file_digest(path) for path in paths}


# ---- write ----


def record_of(
    config: Config,
    system: System,
    split: str,
    training_data: str,
    clips: Sequence[Clip],
    *,
    models: Mapping[str, str],
    thresholds: Mapping[str, float],
    score_unit: str,
    texts: Mapping[str, str],
) -> Record:
    """Record of the CSVs of one machine type: ``models`` from ``model_digests``, ``texts`` name of a CSV -> content."""
    return Record(
        machine_type=clips[0].machine_type,
        system=system.name,
        split=split,
        training_data=training_data,
        settings=settings_of(config, system),
        models=dict(models),
        clips=len(clips),
        fingerprint=fingerprint(clips),
        thresholds=dict(thresholds),
        score_unit=score_unit,
        result_file=config.result_file,
        max_fpr=config.max_fpr,
        files={name: records.digest(text.encode()) for name, text in texts.items()},
    )


def write(folder: Path, record: Record, texts: Mapping[str, str]) -> None:
    """Write the CSVs of a machine type and their record; what an earlier run left of the machine type goes.

    First go the result files, whose figures are of the scores before; then comes the record, then the CSVs. Killed
    in between, what is there does not fit the record, and no figure is taken from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (record.result_file, score_files.decision_result_name(record.result_file)):
        (folder / name).unlink(missing_ok=True)
    records.write(record_path(folder, record.machine_type), dataclasses.asdict(record))
    for name, text in texts.items():
        write_text(folder / name, text)
        logger.debug("written: %s", folder / name)
    for (machine_type, _), path in csv_files(folder, read_year(record.year)):
        if machine_type == record.machine_type and path.name not in texts:
            path.unlink()
            logger.info("%s: removed, as there are no such test clips any more", path)


def csv_files(folder: Path, year: Year) -> list[tuple[Key, Path]]:
    """(machine type, unit) and path of every CSV that 01_test.py may have written, sorted."""
    paths = sorted(folder.glob("*.csv"))
    return sorted((key, path) for path in paths for kind in KINDS if (key := year.parse_file(path.name, kind)))


# ---- read back and check ----


def read(path: Path) -> Record:
    """Record of a file; ValueError if it is not one that ``write`` has written."""
    block = records.read(path, FIELDS)
    if block.keys() != FIELDS.keys():
        raise ValueError(f"expected the keys {', '.join(FIELDS)}")
    return Record(**block)


def read_all(folder: Path) -> tuple[list[Record], list[str]]:
    """Records of a folder, sorted by machine type; and the faults of those that cannot be read."""
    found, faults = [], []
    for path in sorted(folder.glob("record_*.yaml")):
        try:
            record = read(path)
            if path != record_path(folder, record.machine_type):
                raise ValueError(f"a record of {record.machine_type}; was the file renamed?")
            found.append(record)
        except ValueError as error:
            faults.append(f"{path}: {error}")
    return found, faults


def check(
    folder: Path, *, config: Config | None = None, system: System | None = None, required: bool = False
) -> list[Record]:
    """Records of a folder whose CSVs all fit them, and belong to one run of one state of the models.

    Parameters
    ----------
    config : with it, the models that are there must be those that scored; None: they are not looked at
    system : with it, its settings must be those of the scores; None: the records are only compared with each other
    required : whether there must be records

    Raises
    ------
    UserError : naming the CSVs that do not fit, and why.
    """
    found, faults = read_all(folder)
    if found or faults or required:
        faults += _content_faults(folder, found)
        settings = settings_of(config, system) if config and system else None
        faults += _origin_faults(found, config and model_directory(config, system), settings)
    if faults:
        raise common.fault_list(f"{folder}: files that do not fit what should have made them", faults, ADVICE)
    return found


def require_clips(folder: Path, found: Sequence[Record], config: Config) -> None:
    """Raise UserError for machine types whose test clips, where they are there, are others than were scored.

    No clip is read that has not been touched since the scoring, or that the cache of checksums knows.
    """
    faults = []
    for record in found:
        directory = config.directory(record.split)
        year = read_year(record.year)
        tests = test_folders(directory, record.machine_type, year)
        there = test_clip_paths(directory, record.machine_type, names=config.names, year=year)
        since = _changed(record_path(folder, record.machine_type))
        touched = sorted(name for name, path in there.items() if _changed(path) > since)
        named = score_files.some(list(record.files))
        where = ", ".join(map(str, tests))
        if there and len(there) != record.clips:
            faults.append(f"{named}: of other clips than {where} has now")
        elif touched and record.fingerprint != _fingerprint_now(tests, year, config):
            faults.append(f"{named}: of clips that have changed in {where}: {score_files.some(touched)}")
    if faults:
        raise common.fault_list(f"{folder}: scores of other clips", faults, ADVICE)


def _changed(path: Path) -> int:
    """When a file's content or name was last changed [ns]; the second of the two times cannot be set back."""
    stat = path.stat()
    return max(stat.st_mtime_ns, stat.st_ctime_ns)


def _fingerprint_now(tests: Sequence[Path], year: Year, config: Config) -> str:
    """Fingerprint of the clips of test folders; those are read that the cache of checksums does not know."""
    options = {"names": config.names, "channel": config.channel, "cache_directory": config.cache_directory}
    folders = [(folder.parent.name, folder) for folder in tests]
    return fingerprint(check_clips(folders, min_samples=1, normal_only=False, year=year, **options))


def require_only(folder: Path, machine_types: Sequence[str], directory: Path, year: Year) -> None:
    """Raise UserError if a result folder has CSVs of other machine types than a run over all of ``directory``."""
    others = [path.name for (machine_type, _), path in csv_files(folder, year) if machine_type not in machine_types]
    if others:
        raise common.fault_list(
            f"{folder}: files of machine types that {directory} does not have",
            others,
            "Move them away; or score with --machine-type, which adds to what is there.",
        )


def _content_faults(folder: Path, found: Sequence[Record]) -> Iterator[str]:
    """CSVs that are not what their record says, are not there, or have no record."""
    digests = {name: value for record in found for name, value in record.files.items()}
    years = {record.year for record in found} or {DEFAULT}
    there = {path.name: path for year in years for _, path in csv_files(folder, read_year(year))}
    for name in sorted(digests.keys() | there.keys()):
        if name not in digests:
            yield f"{name}: no record says what made it"
        elif name not in there:
            yield f"{name}: missing; the run that scored it was interrupted, or the file was removed"
        elif records.digest(there[name].read_bytes()) != digests[name]:
            yield f"{name}: not as it was written; edited, or of a run that was interrupted"


def _origin_faults(found: Sequence[Record], models_in: Path | None, settings: dict | None) -> Iterator[str]:
    """Machine types whose CSVs are of another run than the YAML's, the models' or the first machine type's."""
    models: dict[str, tuple[str, Record]] = {}
    for record in found:
        first = found[0]
        named = score_files.some(list(record.files))
        same = (first.system, first.scored_by) == (record.system, record.scored_by)
        changes = differences(record.settings, settings if settings is not None else first.settings)
        if not same:
            yield f"{named}: of {record.scored_by} {record.system}, beside {first.scored_by} {first.system}"
        elif changes:
            whose = "the YAML's" if settings is not None else f"{first.machine_type}'s"
            yield f"{named}: scored with other settings than {whose}: {', '.join(changes)}"
        for name, value in record.models.items():
            known, owner = models.setdefault(name, (value, record))
            path = models_in and models_in / name
            if path and path.is_file() and file_digest(path) != value:
                yield f"{named}: of another model than the present one, {path}"
            elif known != value:
                yield f"{named}: of another state of the model ({name}) than {owner.machine_type}'s"
