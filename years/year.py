"""One year of the challenge, as its YAML file says: what names mean, which clips there are, how they are judged."""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
DEFAULT = 2020  # of the YAML's key: the report's
KINDS = ("anomaly_score", "decision_result")  # of the CSVs
HIDDEN = "noattribute"  # what a name says in place of attributes that are not told
Unit = tuple[str, str]  # machine type, what has score files of its own: a machine ID, or a section's domain


class ClipName(NamedTuple):
    """What the name of a clip says; None: nothing."""

    machine_id: str  # or the section, as it is called since 2021
    label: int | None = None  # 0 normal, 1 anomaly
    domain: str | None = None  # source or target
    attributes: str | None = None  # all that stands behind the number


@dataclass(frozen=True, eq=False)
class Year:
    """A year's file; docs/years.md explains the keys."""

    year: int
    names: Mapping[str, str]
    unit: str
    files: str
    rule: str  # of evaluation/rules.py
    eval_clip: str
    test_clips: Mapping[str, Mapping[str, Mapping[str, list[int] | int | None]]]  # split -> machine type -> unit
    meta: Mapping
    archives: Mapping[str, list[Mapping]]
    also_read: Sequence[str] = ()
    decisions: bool = False
    domains: Sequence[str] = ()
    test_folders: Sequence[str] = ("test",)
    channel: int | None = None
    first_number: Mapping[str, int] = field(default_factory=dict)
    list_refused: str = ""
    samples: Mapping[str, int] = field(default_factory=dict)
    max_fpr: float = 0.1  # of the published figures
    published: Sequence[Mapping] = ()

    def parse(self, name: str) -> ClipName:
        """What a clip's name says; ValueError if it is not of the year's form."""
        match = self._pattern.fullmatch(name)
        if not match:
            raise ValueError(f"name is not of the form {self.names['form']}")
        found = {key: value for key, value in match.groupdict().items() if value}
        label = {"normal": 0, "anomaly": 1}.get(found.get("label", "").lower())
        domain = found.get("domain")
        return ClipName(found["id"].lower(), label, domain and domain.lower(), told(found.get("attributes")))

    def parse_supplemental(self, name: str) -> ClipName | None:
        """What the name of a supplemental clip of the machine, without its noise, says; None for another name."""
        match = self._supplemental_pattern.fullmatch(name)
        if match is None or match["kind"].lower() != "machine":
            return None
        return ClipName(match["id"].lower(), 0, None, told(match["attributes"]))

    @functools.cached_property
    def _pattern(self) -> re.Pattern:
        return self._compiled(self.names["pattern"])

    @functools.cached_property
    def _supplemental_pattern(self) -> re.Pattern:
        return self._compiled(self.names.get("supplemental", "(?!)"))  # which nothing matches

    def _compiled(self, pattern: str) -> re.Pattern:
        return re.compile(pattern.replace("{id}", self.names["id"]), re.IGNORECASE | re.ASCII)

    # ---- units: what has score files of its own ----

    def unit_of(self, machine_id: str, domain: str | None) -> str:
        """Unit that a clip belongs to."""
        return self.unit.format(id=machine_id, domain=domain or "")

    def id_of(self, unit: str) -> str:
        """Machine ID, or section, of a unit."""
        return re.match(self.names["id"], unit, re.ASCII)[0]

    def units(self, split: str, machine_type: str) -> Sequence[str]:
        """The year's units of a machine type of ``dev`` or ``eval``, none where it has no such machine type."""
        return list(self.test_clips[split].get(machine_type, ()))

    def file_name(self, kind: str, machine_type: str, unit: str) -> str:
        """Name of a CSV; ``kind`` is one of ``KINDS``."""
        return f"{kind}_{self.files.format(machine_type=machine_type, unit=unit)}"

    def parse_file(self, name: str, kind: str) -> Unit | None:
        """Machine type and unit of a CSV of this kind, None for another file."""
        matches = (pattern.fullmatch(name.removeprefix(f"{kind}_")) for pattern in self._file_patterns)
        match = next(filter(None, matches), None) if name.startswith(f"{kind}_") else None
        return (match["machine_type"], match["unit"]) if match else None

    @functools.cached_property
    def _file_patterns(self) -> list[re.Pattern]:
        id_or_domain = {"{id}": self.names["id"], "{domain}": "|".join(f"(?:{name})" for name in self.domains)}
        unit = re.sub(r"\{\w+\}", lambda match: f"(?:{id_or_domain[match[0]]})", self.unit)
        parts = {re.escape("{machine_type}"): "(?P<machine_type>.+)", re.escape("{unit}"): f"(?P<unit>{unit})"}
        patterns = []
        for form in (self.files, *self.also_read):
            pattern = re.escape(form).replace(r"\*", ".*")
            for key, part in parts.items():
                pattern = pattern.replace(key, part)
            patterns.append(re.compile(pattern, re.ASCII))
        return patterns

    # ---- the official clips ----

    def eval_clips(self) -> dict[Unit, list[str]]:
        """Names of the evaluation clips of each unit, as they are given out."""
        return {
            (machine_type, unit): [
                self.eval_clip.format(unit=unit, number=self.first_number.get(machine_type, 0) + number)
                for number in range(total(counts))
            ]
            for machine_type, units in self.test_clips["eval"].items()
            for unit, counts in units.items()
        }

    def whole(self, units: Iterable[Unit], split: str) -> bool:
        """Whether these are all the units that a set has of their machine types."""
        types = {machine_type for machine_type, _ in units}
        return set(units) == {(name, unit) for name in types for unit in self.units(split, name)}

    def knows(self, units: Iterable[Unit], split: str | None = None) -> bool:
        """Whether all of these are units of one of its sets, or of ``split``."""
        wanted = set(units)
        return any(
            wanted <= {(machine_type, unit) for machine_type in of_split for unit in of_split[machine_type]}
            for name, of_split in self.test_clips.items()
            if split in (None, name)
        )


def told(attributes: str | None) -> str | None:
    """Attributes in a name, None where it hides them."""
    return attributes if attributes and attributes.lower() != HIDDEN else None


def total(counts: Sequence[int] | int | None) -> int:
    """Clips of a unit: of both labels, or the number itself; 0 where it is not known."""
    return counts if isinstance(counts, int) else sum(counts or ())


def known_years() -> list[int]:
    """The years that there are files of."""
    return sorted(int(path.stem) for path in FOLDER.glob("[0-9]*.yaml"))


@functools.cache
def read_year(year: int) -> Year:
    """Year of the challenge; KeyError if there is no file of it."""
    import yaml

    path = FOLDER / f"{year}.yaml"
    if not path.is_file():
        raise KeyError(year)
    return Year(year=year, **yaml.safe_load(path.read_text(encoding="utf-8")))


def every_year() -> Iterator[Year]:
    """All years, the first one first."""
    return map(read_year, known_years())


def that_read(name: str, machine_type: str | None = None) -> list[int]:
    """Years whose clips have such names, of a machine type that they have."""
    found = []
    for year in every_year():
        types = [known for split in year.test_clips.values() for known in split]
        try:
            year.parse(name)
        except ValueError:
            continue
        if machine_type is None or machine_type in types:
            found.append(year.year)
    return found


def of_files(names: Sequence[str], kind: str) -> list[int]:
    """Years whose files have all of these names.

    Those of whose machine types these are all the sections; or else that have such sections; or else all.
    """
    units = {year: {year.parse_file(name, kind) for name in names} for year in every_year()}
    of_form = [year for year in units if names and None not in units[year]]
    known = [year for year in of_form if year.knows(units[year])]
    whole = [year for year in known if any(year.whole(units[year], split) for split in year.test_clips)]
    return [year.year for year in whole or known or of_form]


def in_words(years: Sequence[int]) -> str:
    """``2021``, ``2022 to 2026``, ``2021 or 2023``."""
    if len(years) > 2 and years[-1] - years[0] == len(years) - 1:
        return f"{years[0]} to {years[-1]}"
    return " or ".join(map(str, years))
