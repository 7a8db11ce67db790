"""Whether the clips are those of the YAML's year of the challenge: its machine types, sections, domains."""

import logging
from collections.abc import Iterator, Mapping, Sequence

from audio.clips import Clip
from common import fault_list
from config import Config
from years.year import Year, every_year, in_words

logger = logging.getLogger(__name__)


def check(settings: Config, split: str, clips: Mapping[str, Sequence[Clip]], *, tested: bool) -> None:
    """Raise UserError for machine types and sections of another year; warn of sections and domains without clips.

    Machine types that no year knows are one's own, and may have any sections.

    Parameters
    ----------
    split : the dataset that the clips are of, ``dev`` or ``eval``
    clips : machine type -> its clips
    tested : whether they are test clips
    """
    year = settings.challenge
    if settings.names == "any" or not year.domains:
        return
    faults = []
    for machine_type, own in clips.items():
        if year.knows(_units(year, machine_type, own), split):
            for line in _lacking(settings, split, machine_type, own, tested=tested):
                logger.warning("%s: %s", machine_type, line)
            continue
        here = bool(year.units(split, machine_type))
        if not here and any(year.units(name, machine_type) for name in year.test_clips):
            continue  # of the year's other set
        later = [other for other in every_year() if other.domains]
        others = [o.year for o in later if o.knows(_units(o, machine_type, own), split if here else None)]
        if others or here:
            there = ", ".join(sorted({clip.machine_id for clip in own}))
            where = f"; they are of {in_words(others)}" if others else ""
            faults.append(f"{machine_type}: {there} are no {split} clips of {year.year}{where}")
    if faults:
        advice = f"The YAML has year: {year.year}; set the year of the clips, or name the folders of that year."
        raise fault_list("Clips of another year", faults, advice)


def _units(year: Year, machine_type: str, clips: Sequence[Clip]) -> set[tuple[str, str]]:
    """Units that the clips are of if they are of ``year``."""
    return {(machine_type, year.unit_of(clip.machine_id, clip.domain or year.domains[0])) for clip in clips}


def _lacking(settings: Config, split: str, machine_type: str, clips: Sequence[Clip], *, tested: bool) -> Iterator[str]:
    """Sections without clips, and domains without clips in a section."""
    year = settings.challenge
    known = {(clip.machine_id, clip.domain) for clip in clips}
    ids = {machine_id for machine_id, _ in known}
    told = any(domain for _, domain in known)
    kind = "test" if tested else "training"
    every = {year.id_of(unit) for unit in year.units(split, machine_type)}
    if missing := sorted(every - ids):
        yield f"no {kind} clips of {', '.join(missing)}, which the year {year.year} has"
    for domain in year.domains if told else ():
        if without := sorted(machine_id for machine_id in ids if (machine_id, domain) not in known):
            yield f"no {kind} clips of the domain {domain} in {', '.join(without)}"
