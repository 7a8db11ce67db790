"""The official archives of a year: what is known of each, and what it unpacks to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common import UserError
from years.year import read_year

HEADER_BYTES = 4096  # what a wav file may have beside its samples
MAX_FILE_BYTES = 16 * 2**20  # of a clip, or of a list; the official ones have 0.4 and 0.6 MB
GROWTH = 1.5  # bytes unpacked per byte of an archive, or less: 1.1 to 1.32 in 2020, where the clips' lengths are known
USUAL_SAMPLES = 160_000  # 10 s: of a clip where neither its length nor the archive's size is known


@dataclass(frozen=True)
class Archive:
    """A file of the official dataset: an archive of clips, or the ground truth's list."""

    name: str
    record: int
    year: int  # of the challenge
    md5: str | None = None  # None: not known
    bytes: int | None = None  # None: not known
    machine_type: str | None = None  # None: the list, which goes beside the dataset's folder
    clips: Mapping[str, int | None] = field(default_factory=dict)  # folder, as test -> clips in it; None: not known
    samples: int = 0  # in each clip; 0: not known

    @property
    def unpacked_bytes(self) -> int:
        """More than it unpacks to, or about that where little is known of it."""
        if self.clips and self.bytes and not self.samples:
            return round(GROWTH * self.bytes)
        n_clips = sum(filter(None, self.clips.values()))
        return n_clips * (2 * (self.samples or USUAL_SAMPLES) + HEADER_BYTES) or MAX_FILE_BYTES

    @property
    def most_bytes(self) -> int:
        """Its size, or more where that is not known."""
        return self.bytes or self.unpacked_bytes

    def places(self, directory: Path) -> list[Path]:
        """What it becomes in the dataset's ``directory``: folders of clips, or the list beside the directory."""
        return [directory / self.machine_type / name for name in self.clips] or [self.file(directory)]

    def file(self, directory: Path) -> Path:
        """Where the file itself lies under its own name; if there is one, it is the user's."""
        return (directory if self.clips else directory.absolute().parent) / self.name

    def part(self, directory: Path) -> Path:
        """The file that it is fetched to."""
        return self.file(directory).with_name(f"{self.name}.part")


def read_archives(year: int, split: str, machine_types: Sequence[str] | None) -> list[Archive]:
    """The archives of a year's split, or those of some machine types; a list belongs to all of them.

    Raises
    ------
    UserError : if there is no such machine type.
    """
    of_year = read_year(year)
    archives = [
        Archive(**entry, year=year, samples=of_year.samples.get(entry.get("machine_type"), 0))
        for entry in of_year.archives[split]
    ]
    known = list(dict.fromkeys(archive.machine_type for archive in archives if archive.machine_type))
    unknown = [name for name in machine_types or () if name not in known]
    if unknown:
        raise UserError(f"--machine-type {' '.join(unknown)}: the dataset has {', '.join(known)}")
    return [a for a in archives if not machine_types or a.machine_type in (None, *machine_types)]


def size_of(path: Path) -> int:
    """Size of a file [bytes], 0 where there is none."""
    return path.stat().st_size if path.exists() else 0
