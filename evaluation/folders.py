"""Result folders, evaluated side by side: found, named, read, their result.csv written."""

import functools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import common
from config import Config
from evaluation import result_record, score_files
from evaluation.metrics import Decisions, Key, LabelledScores, Performance, evaluate, judge
from evaluation.result_record import Record
from evaluation.rules import RULES, Rule
from evaluation.truth import Truth, read_truth
from years.year import DEFAULT, Year, every_year, in_words, of_files, read_year


@dataclass(frozen=True)
class Result:
    """A folder of score files, evaluated."""

    name: str
    directory: Path
    scores: Mapping[Key, LabelledScores]
    performance: Performance
    records: Sequence[Record] = ()  # of what made the scores; none in a folder that 01_test.py did not write
    year: Year = field(default_factory=functools.partial(read_year, DEFAULT))

    @property
    def rule(self) -> Rule:
        """How the year judges."""
        return RULES[self.year.rule]

    @functools.cached_property
    def decisions(self) -> dict[str, dict[str, Decisions]]:
        """Machine type -> machine ID -> how good the decisions on its clips are, where there are any."""
        return judge(self.scores, self.year.domains if self.rule.apart else ())

    @property
    def undefined(self) -> dict[Key, list[str]]:
        """Figures that the clips of a unit do not give, though they give others."""
        lacking = {
            (machine_type, unit): [n for n, figure in zip(self.rule.names, figures, strict=True) if math.isnan(figure)]
            for machine_type, units in self.performance.items()
            for unit, figures in units.items()
        }
        return {key: names for key, names in lacking.items() if names}

    @property
    def unrated(self) -> list[Key]:
        """Machine IDs that give no AUC: they have no normal clips with a label, or no anomalous ones."""
        return [key for key in self.scores if key[1] not in self.performance.get(key[0], {})]


def result_folders(paths: Sequence[Path], systems: Sequence[str] = ()) -> list[Path]:
    """The folders with score files: each path itself, or those directly in it (``result/dev`` holds one per system).

    Those in a path are in the order of ``systems``; others of its folders follow by name.
    """
    folders: list[Path] = []
    places = {name: place for place, name in enumerate(systems)}
    for path in paths:
        inner = {file.parent for file in path.glob("*/anomaly_score_*.csv")}
        if not inner or any(path.glob("anomaly_score_*.csv")):
            folders.append(path)
        else:
            folders += sorted(inner, key=lambda folder: (places.get(folder.name, len(places)), folder))
    return list({folder.resolve(): folder for folder in folders}.values())


def folder_names(folders: Sequence[Path]) -> list[str]:
    """Names for the folders: the fewest last parts of their paths by which all differ."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def years_of(folders: Sequence[Path], wanted: int | None, config: Config | None) -> list[Year]:
    """Years of the challenge that score files may be of, the likeliest first.

    Parameters
    ----------
    wanted : by the user; None: the one that made them, by their records; that of ``config`` if their names are of its
        form; or those whose machine types and sections they name

    Raises
    ------
    UserError : if they are of several.
    """
    if wanted:
        return [read_year(wanted)]
    found = {folder: _years_of(folder) for folder in folders}
    known = [years for years in found.values() if years]
    together = set.intersection(*map(set, known)) if known else set()
    if known and not together:
        lines = [f"{folder}: {in_words(years)}" for folder, years in found.items() if years]
        raise common.fault_list("Score files of several years", lines, "Evaluate those of a year at a time.")
    own = config.year if config else DEFAULT
    return [read_year(year) for year in sorted(together or {own}, key=lambda year: (year != own, year))]


def _years_of(folder: Path) -> list[int]:
    """Years that a folder's score files may be of; none where their names tell nothing."""
    records, _ = result_record.read_all(folder)
    if records:
        return sorted({record.year for record in records})
    names = [path.name for path in _score_files(folder)]
    of_a_form = [name for name in names if any(year.parse_file(name, score_files.SCORES) for year in every_year())]
    return of_files(of_a_form, score_files.SCORES)  # others are told of when the folder is read


def _score_files(folder: Path) -> Iterator[Path]:
    return folder.glob(f"{score_files.SCORES}_*.csv")


def _read_truth(path: Path, years: Sequence[Year]) -> tuple[Year, Truth]:
    """The first of the years that the ground truth may be of, and the truth; or the first one's error."""
    errors = []
    for year in years:
        try:
            return year, read_truth(path, year)
        except common.UserError as error:
            errors.append(error)
    raise errors[0]


def read_results(
    paths: Sequence[Path],
    against: Path | None,
    truth: Path | None,
    *,
    max_fpr: float,
    config: Config | None = None,
    wanted_year: int | None = None,
) -> tuple[list[Result], Result | None]:
    """Evaluate every result folder that ``paths`` name, and the one to compare them with.

    Parameters
    ----------
    truth : see ``truth.read_truth``; None: the labels are in the clips' names
    wanted_year : see :func:`years_of`
    config : with it, systems are in its order, and scores in its folder must be of the models and clips of now

    Raises
    ------
    UserError : as ``result_record.check``, ``score_files.read_folder`` and ``metrics.evaluate``; or if ``against`` is
        several or the only one.
    """
    systems = list(config.systems) if config else ()
    wanted = [folder.resolve() for folder in result_folders(paths, systems)]
    reference = [folder.resolve() for folder in result_folders([against] if against else [])]
    if len(reference) > 1:
        raise common.UserError(f"--against {against}: {len(reference)} folders with score files; name one of them")
    if reference and reference == wanted:
        raise common.UserError(f"--against {against}: the same folder; nothing to compare")
    folders = result_folders([*paths, against] if against else paths, systems)
    year, *others = years_of(folders, wanted_year, config)
    told = None
    if truth and any(path for folder in folders for path in _score_files(folder)):  # else that is what is told
        year, told = _read_truth(truth, [year, *others])
    results, errors = {}, []
    for name, folder in zip(folder_names(folders), folders, strict=True):
        try:
            results[folder.resolve()] = _read_result(name, folder, told, year, max_fpr=max_fpr, config=config)
        except score_files.NoLabelsError:  # of one folder says it for all
            raise
        except common.UserError as error:  # to name the faults of all folders at once
            errors.append(str(error))
    if errors:
        raise common.UserError("\n".join(errors))
    return [results[folder] for folder in wanted], results[reference[0]] if reference else None


def _read_result(
    name: str, folder: Path, truth: Mapping | None, year: Year, *, max_fpr: float, config: Config | None
) -> Result:
    ours = config and folder.resolve().parent.parent == config.result_directory.resolve()
    records = result_record.check(folder, config=config if ours else None)
    if ours:
        result_record.require_clips(folder, records, config)
    any_names = any(record.any_names for record in records)
    # Of one's own machines there may be clips of one kind, or without labels; a challenge's have both.
    partial = not truth and (any_names or any(record.split == "dev" for record in records))
    scores = score_files.read_folder(folder, truth, year=year, any_names=any_names, unlabelled=partial)
    performance = evaluate(scores, max_fpr=max_fpr, rated_only=partial, rule=RULES[year.rule])
    return Result(name, folder, scores, performance, records, year)


def rated(
    folder: Path, settings: Config, machine_types: Collection[str] | None = None
) -> tuple[dict[Key, LabelledScores], Performance]:
    """Scores in a folder of 01_test.py, of some machine types or all, and the figures of those that give any."""
    year = settings.challenge
    options = {"year": year, "any_names": settings.names == "any", "unlabelled": True}
    scores = score_files.read_folder(folder, machine_types=machine_types, **options)
    return scores, evaluate(scores, max_fpr=settings.max_fpr, rated_only=True, rule=RULES[year.rule])


def write_results(
    results: Sequence[Result], output: Path | None, *, file_name: str = "result.csv", max_fpr: float
) -> list[list[Path]]:
    """Write result.csv into each folder; or to ``output``: a file for one result, a folder for several.

    Beside it, where there are decisions, goes a file of the same form with their figures. Without any AUC there is no
    result.csv. The result file of 01_test.py is left alone where it has pAUCs of another ``max_fpr``.

    Raises
    ------
    UserError : if a place cannot be written to.
    """
    written = []
    for result in results:
        taken = {record.result_file for record in result.records if record.max_fpr != max_fpr}
        path = result.directory / (f"result_max_fpr_{max_fpr:g}.csv" if file_name in taken else file_name)
        if output:
            path = output if len(results) == 1 else output / f"result_{result.name.replace('/', '_')}.csv"
        paths = []
        try:
            if result.performance:
                score_files.write_result(path, result.performance, result.rule)
                paths.append(path)
            if result.decisions:
                paths.append(path.with_name(score_files.decision_result_name(path.name)))
                score_files.write_decision_result(paths[-1], result.decisions)
        except OSError as error:
            fault = f"{path}: cannot be written ({error.strerror}); --output puts it elsewhere"
            raise common.UserError(fault) from error
        written.append(paths)
    return written


def require_same_clips(results: Sequence[Result], keys: Collection[Key] | None = None) -> None:
    """Raise UserError unless all results have the same clips of the machine IDs ``keys``, or of all."""
    first, *others = results
    faults = []
    for other in others:
        for key in keys or dict.fromkeys([*first.scores, *other.scores]):
            sides = [(r.name, set(r.scores[key].names) if key in r.scores else set()) for r in (first, other)]
            for (name, here), (_, there) in (sides, sides[::-1]):
                if alone := sorted(here - there):
                    faults.append(f"{' '.join(key)}: {len(alone)} clips only in {name}: {score_files.some(alone)}")
    if faults:
        title = f"{', '.join(str(result.directory) for result in results)} do not cover the same clips"
        raise common.fault_list(title, faults, "Score the same test clips with every system.")
