"""Clips of a dataset: what their names say, which there are, what they are like; each known by its content."""

import dataclasses
import functools
import hashlib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audio import attributes, wav
from audio.profile import KnownFiles, Profile, file_crc
from common import UserError, fault_list, load_wav
from years.year import DEFAULT, ClipName, Year, every_year, in_words, read_year, that_read

LABELS = {"normal": 0, "anomaly": 1}
FOLDER_LABELS = LABELS | {"abnormal": 1}  # MIMII's name
CLIP_OF_FOLDER = re.compile(rf"({'|'.join(FOLDER_LABELS)})/[^/]+\.wav", re.IGNORECASE | re.ASCII)
FOLDERS = {  # that count: docs/reference.md has the same table
    "<machine type>/train": "normal clips to train on",
    "<machine type>/test": "clips to be scored; with names: official, their names say normal or anomaly",
    "<machine type>/test/normal": "with names: any: normal clips to be scored",
    **{f"<machine type>/test/{name}": "the same, anomalous" for name, label in FOLDER_LABELS.items() if label},
}
SUPPLEMENTAL = "supplemental"  # folder of clips of the machine without noise, or of the noise alone
ANY_ID = "id_00"  # of all clips whose names say nothing
MANY = 1000  # clips that one waits for
UNWRITABLE = re.compile("[\x00-\x1f\ud800-\udfff]")  # control characters, and bytes that are no UTF-8

logger = logging.getLogger(__name__)


def parse_clip_name(name: str, year: Year | None = None) -> ClipName:
    """``normal_id_01_00000000.wav`` -> machine ID ``id_01``, label 0; the label is 1 for an anomaly, None for none.

    A clip that ``names: any`` has taken from a folder is called ``normal/<text>.wav``: ``id_00``, 0.

    Parameters
    ----------
    year : of the challenge, whose names these are; None: the YAML's default

    Raises
    ------
    ValueError : if the name is not of the official form.
    """
    if match := CLIP_OF_FOLDER.fullmatch(name):
        return ClipName(ANY_ID, FOLDER_LABELS[match[1].lower()])
    return (year or read_year(DEFAULT)).parse(name)


@dataclass(frozen=True)
class Clip:
    """One wav file whose header has been checked."""

    path: Path
    machine_type: str
    machine_id: str
    label: int | None  # 0 normal, 1 anomaly, None unknown
    n_samples: int
    sample_rate: int  # [Hz]
    size: int  # [bytes]
    mtime_ns: int
    crc: int  # CRC-32 of the whole file
    first: int = 0  # [samples] where it begins in the file, of which it may be a part
    channel: int | str | None = None  # a number from 0, mean; None: the only one
    profile: Profile | None = None  # of the whole file
    folder: str = ""  # normal, anomaly or abnormal: the folder in place of the name says what the clip is
    domain: str | None = None  # source or target; None: not told, or of a year without domains
    attributes: str | None = None  # of the machine and its surroundings, as one text; None: not told

    @property
    def name(self) -> str:
        """File name without folders, but for one that says what the clip is; as it stands in the score CSVs."""
        return f"{self.folder}/{self.path.name}" if self.folder else self.path.name


def machine_types_in(directory: Path, key: str, year: Year | None = None) -> list[str]:
    """Names of the machine-type folders in ``directory``, sorted; files and hidden folders are ignored.

    Parameters
    ----------
    key : of the YAML, that names the directory
    year : of the challenge; None: the YAML's default

    Raises
    ------
    UserError : if there is no such directory, or no machine type in it.
    """
    if not directory.is_dir():
        raise UserError(
            f"{key}: no folder {directory} (looked for {directory.resolve()})\n"
            "Put the dataset there, or change the key in the YAML; `python make_demo_data.py` makes a synthetic one."
        )
    inner = ("train", *(year or read_year(DEFAULT)).test_folders)
    names = sorted(
        entry.name
        for entry in directory.iterdir()
        if not entry.name.startswith(".") and any((entry / folder).is_dir() for folder in inner)
    )
    unusable = [name for name in names if UNWRITABLE.search(name)]
    if unusable:
        raise fault_list(f"{key}: folders whose names no CSV gives back", unusable, "Rename them.")
    if not names:
        layout = folder_table()
        if any(next(directory.glob(f"{above}/normal/*.wav"), None) for above in ("*", "*/*")):
            layout += "\nOf MIMII's folders normal and abnormal, a part of the normal clips goes to train."
        raise UserError(f"{key}: no machine type in {directory.resolve()}\n{layout}")
    return names


def folder_table() -> str:
    """The folders that count, for an error."""
    width = max(map(len, FOLDERS)) + len("/*.wav")
    return "\n".join(
        ["Folders that count:", *(f"  {f'{name}/*.wav':{width}}  {what}" for name, what in FOLDERS.items())]
    )


def select_machine_types(
    directories: Mapping[str, Path], wanted: Sequence[str] | None, year: Year | None = None
) -> dict[str, list[str]]:
    """Machine types of each of ``directories``, by the YAML's key; or those of them that the user ``wanted``."""
    alike = functools.partial(unicodedata.normalize, "NFC")  # a Mac's file system may have the other form
    found = {key: machine_types_in(directory, key, year) for key, directory in directories.items()}
    every = sorted({name for names in found.values() for name in names})
    if unknown := sorted({*map(alike, wanted or ())} - {*map(alike, every)}):
        where = " or ".join(str(directory.resolve()) for directory in directories.values())
        raise UserError(f"--machine-type {' '.join(unknown)}: no such folder in {where}; there is {', '.join(every)}")
    chosen = {*map(alike, wanted or every)}
    return {key: [name for name in names if alike(name) in chosen] for key, names in found.items()}


def wav_paths(folder: Path) -> list[Path]:
    """Wav files of ``folder``, sorted by name; other and hidden files are ignored."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ".wav" and not p.name.startswith("."))


def official_order(clips: Sequence[Clip]) -> list[Clip]:
    """The official order of a score CSV: by machine ID, normal clips before anomalous ones, then by name."""
    return sorted(clips, key=lambda clip: (clip.machine_id, clip.label or 0, clip.name))


@dataclass(frozen=True)
class ClipFolder:
    """A folder of clips of one machine type."""

    machine_type: str
    path: Path
    names: str  # official: they say which machine and what label; any: the clips are of one machine
    label: int | None = None  # of its clips, where their names do not say it
    shown: str = ""  # name of the folder, where it says the label


def clip_folders(machine_type: str, folder: Path, *, names: str, normal_only: bool) -> list[ClipFolder]:
    """The folders that hold the clips of a machine type's train or test ``folder``.

    With ``names: any`` a train folder holds normal clips, and a test folder either clips without labels or folders that
    name these.
    """
    if names == "official" or normal_only:
        return [ClipFolder(machine_type, folder, names, 0 if normal_only else None)]
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    labelled = [entry for entry in entries if entry.is_dir() and entry.name.lower() in FOLDER_LABELS]
    return [
        ClipFolder(machine_type, entry, names, FOLDER_LABELS[entry.name.lower()], entry.name) for entry in labelled
    ] or [ClipFolder(machine_type, folder, names)]


def test_folders(directory: Path, machine_type: str, year: Year | None = None) -> list[Path]:
    """Folders of the test clips of a machine type in a dataset's ``directory``."""
    return [directory / machine_type / name for name in (year or read_year(DEFAULT)).test_folders]


def test_clip_paths(directory: Path, machine_type: str, *, names: str, year: Year | None = None) -> dict[str, Path]:
    """Paths of the test clips of a machine type, by their names in the score CSVs."""
    folders = test_folders(directory, machine_type, year)
    sources = [s for folder in folders for s in clip_folders(machine_type, folder, names=names, normal_only=False)]
    return {f"{s.shown}/{path.name}" if s.shown else path.name: path for s in sources for path in wav_paths(s.path)}


def not_taken(folder: Path, taken: Sequence[Path]) -> str:
    """What else is in a folder: ``12 .flac files, 2 folders``; hidden files are not counted."""
    entries = folder.iterdir() if folder.is_dir() else ()
    others = [entry for entry in entries if not entry.name.startswith(".") and entry not in taken]
    kinds = Counter("folder" if entry.is_dir() else f"{entry.suffix.lower()} file".strip() for entry in others)
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(kinds.items()))


def check_clips(
    folders: Sequence[tuple[str, Path]],
    *,
    min_samples: int,
    normal_only: bool,
    names: str = "official",
    year: Year | None = None,
    channel: int | str | None = None,
    cache_directory: Path | None = None,
) -> list[Clip]:
    """Check the name and header of every wav file of ``folders``; the clips, in the folders' order.

    Parameters
    ----------
    folders : (machine type, folder) pairs
    min_samples : int [samples], the shortest clip that gives a feature
    normal_only : True for training clips
    names, channel : the keys of the YAML
    year : of the challenge; None: the YAML's default
    cache_directory : where the checksums of the files are kept; None: each call reads every file whole

    Raises
    ------
    UserError : naming every folder without clips, or every clip that cannot be used, in one message.
    """
    year = year or read_year(DEFAULT)
    options = {"names": names, "year": year, "normal_only": normal_only}
    jobs = _clip_jobs(folders, **options, channel=channel, directory=cache_directory)
    n_unknown = sum(path.name not in known.known for _, path, known in jobs)
    if cache_directory and n_unknown > MANY:
        logger.info("%d clips are new: they are read once to know them again", n_unknown)

    def check(job: tuple[ClipFolder, Path, KnownFiles]) -> Clip | str:
        try:
            return _check_clip(*job, year, min_samples=min_samples, normal_only=normal_only)
        except (ValueError, OSError, RuntimeError) as error:  # soundfile's errors are RuntimeErrors
            return f"{job[1]}: {error}"

    with ThreadPoolExecutor(8) as pool:
        checked = list(pool.map(check, jobs, chunksize=64))
    for known in {id(known): known for _, _, known in jobs}.values():
        known.keep()
    faults = [result for result in checked if isinstance(result, str)]
    clips = [result for result in checked if isinstance(result, Clip)]
    faults += _sample_rate_faults(clips)
    if faults:
        raise fault_list(
            f"{len(faults)} of {len(jobs)} clips cannot be used", faults, "Replace or remove them, then run again."
        )
    return attributes.filled(clips, year) if year.domains else clips


def _clip_jobs(
    folders: Sequence[tuple[str, Path]],
    *,
    names: str,
    year: Year,
    normal_only: bool,
    channel: int | str | None,
    directory: Path | None,
) -> list[tuple[ClipFolder, Path, KnownFiles]]:
    """Every wav file of ``folders``: where it was found, its path, what is known of its folder.

    Raises
    ------
    UserError : naming every folder without clips.
    """
    empty, jobs = [], []
    for machine_type, folder in folders:
        sources = clip_folders(machine_type, folder, names=names, normal_only=normal_only)
        found = {source: _wanted(wav_paths(source.path), year) for source in sources}
        if not any(found.values()):
            others = not_taken(folder, [])
            empty.append(f"{machine_type}: no wav file in {folder}" + f" but {others}" * bool(others))
            if years := _years_of_folders(folder, year):
                empty[-1] += f"; there are in the test folders of {in_words(years)}, and the YAML has year: {year.year}"
        for source, paths in found.items():
            if paths and (others := not_taken(source.path, paths)):
                logger.info("%s: %d wav files taken, not %s", source.path, len(paths), others)
            known = KnownFiles(source.path, channel, directory)
            jobs += [(source, path, known) for path in paths]
        if sources[0].path != folder and (others := not_taken(folder, [source.path for source in sources])):
            logger.info("%s: %s taken, not %s", folder, ", ".join(source.shown for source in sources), others)
    if empty:
        raise fault_list(
            "Machine types without clips",
            empty,
            f"Put wav files there, or name the other machine types with --machine-type. {folder_table()}",
        )
    return jobs


def _years_of_folders(folder: Path, year: Year) -> list[int]:
    """Years in whose test folders, beside an empty one of ``year``, there are clips."""
    names = {name for other in every_year() for name in other.test_folders if wav_paths(folder.parent / name)}
    others = names - set(year.test_folders) if folder.name in year.test_folders else ()
    return [other.year for other in every_year() if not others.isdisjoint(other.test_folders)] if others else []


def _wanted(paths: list[Path], year: Year) -> list[Path]:
    """Those of a folder's clips that are used: of the supplemental ones, the machine's without noise."""
    if not paths or paths[0].parent.name != SUPPLEMENTAL:
        return paths
    return [path for path in paths if year.parse_supplemental(path.name)]


def _check_clip(
    source: ClipFolder, path: Path, known: KnownFiles, year: Year, *, min_samples: int, normal_only: bool
) -> Clip:
    """Check one clip of a dataset by its name, its header and its samples."""
    if UNWRITABLE.search(path.name):
        raise ValueError("name has control characters or is not UTF-8, so that no CSV gives it back; rename the file")
    said = ClipName(ANY_ID, source.label)
    if source.names == "official":
        said = _said_by(path, source.machine_type, year)
        if normal_only and said.label == 1:
            raise ValueError("an anomalous clip among the training clips; training uses normal clips only")
    options = {"min_samples": min_samples, "channel": known.channel, "known": known}
    clip = check_sound(path, source.machine_type, said.machine_id, said.label, **options)
    return dataclasses.replace(clip, folder=source.shown, domain=said.domain, attributes=said.attributes)


def _said_by(path: Path, machine_type: str, year: Year) -> ClipName:
    """What the official name of a clip of a machine type says."""
    if path.parent.name == SUPPLEMENTAL:
        return year.parse_supplemental(path.name)
    try:
        return parse_clip_name(path.name, year)
    except ValueError as error:
        others = that_read(path.name, machine_type) or that_read(path.name)
        of_year = f"; it is one of {in_words(others)}, and the YAML has year: {year.year}" if others else ""
        raise ValueError(f"{error}{of_year}; with names: any in the YAML it may be any") from None


def check_sound(
    path: Path,
    machine_type: str,
    machine_id: str,
    label: int | None,
    *,
    min_samples: int,
    channel: int | str | None = None,
    known: KnownFiles | None = None,
) -> Clip:
    """Check a wav file by its header and its samples, whatever its name.

    Parameters
    ----------
    channel : the key of the YAML
    known : files of its folder that are known; otherwise the whole file is read

    Raises
    ------
    ValueError, OSError, RuntimeError : if it cannot be used.
    """
    stat = path.stat()
    n_samples, sample_rate, n_channels = wav.check(path, min_samples=min_samples, channel=channel)
    crc, profile = (known or KnownFiles(path.parent, channel, None)).of(path, stat)
    facts = (n_samples, sample_rate, stat.st_size, stat.st_mtime_ns, crc)
    return Clip(
        path, machine_type, machine_id, label, *facts, channel=channel if n_channels > 1 else None, profile=profile
    )


def _sample_rate_faults(clips: Sequence[Clip]) -> list[str]:
    """Clips whose sample rate is not that of the most of their machine type."""
    faults = []
    for machine_type, own in by_machine_type(clips).items():
        rates = Counter(clip.sample_rate for clip in own)
        usual = max(rates, key=rates.get)
        faults += [
            f"{clip.path}: sample rate {clip.sample_rate} Hz; the other clips of {machine_type} have {usual} Hz. "
            f"Resample it: ffmpeg -i IN.wav -ar {usual} OUT.wav"
            for clip in own
            if clip.sample_rate != usual
        ]
    return faults


def by_machine_type(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """Machine type -> its clips, both in the order given."""
    grouped: dict[str, list[Clip]] = {}
    for clip in clips:
        grouped.setdefault(clip.machine_type, []).append(clip)
    return grouped


def fingerprint(clips: Sequence[Clip]) -> str:
    """SHA-256 of a clip list: machine types, names, and checksums of the files, whatever the order and the folder."""
    lines = sorted(
        f"{clip.machine_type}/{clip.name} {clip.size} {clip.crc} {clip.channel}"
        + (f" {clip.attributes}" if clip.attributes else "")  # which may stand in a file beside the clips
        for clip in clips
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load_clip(clip: Clip) -> tuple[np.ndarray, int]:
    """Waveform, shape (n_samples,), float32 in [-1, 1], and sample rate [Hz] of a checked clip.

    Raises
    ------
    UserError : if it cannot be read, or is another than when it was checked.
    """
    waveform, sample_rate = load_wav(clip.path, first=clip.first, n_samples=clip.n_samples, channel=clip.channel)
    stat = clip.path.stat()
    same = (waveform.shape, sample_rate) == ((clip.n_samples,), clip.sample_rate)
    touched = (stat.st_size, stat.st_mtime_ns) != (clip.size, clip.mtime_ns)
    if not same or (touched and file_crc(clip.path) != clip.crc):
        raise UserError(f"{clip.path}: changed since the run began; run again, once no other program writes to it")
    return waveform, sample_rate
