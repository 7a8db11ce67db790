"""The ground truth: which test clips are anomalies, and of which domain they are."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import common
from audio.clips import machine_types_in, parse_clip_name, test_clip_paths
from evaluation.metrics import Key
from evaluation.score_files import binary, csv_rows, parsed_file
from years.year import DEFAULT, ClipName, Year, every_year, in_words, read_year

LABELS, DOMAINS, PREFIX = "ground_truth_data", "ground_truth_domain", "ground_truth"  # of the official evaluators
Truth = dict[Key, dict[str, ClipName]]  # machine type, machine ID (or other unit) -> clip name -> what is told of it
Told = dict[tuple[str, str, str], ClipName]  # machine type, unit, clip name -> what is told


def read_truth(path: Path, year: Year | None = None) -> Truth:
    """Labels of the test clips: from the evaluator's folders, the official list, or the names in a dataset folder.

    Parameters
    ----------
    path : folder of an official evaluator, with ``ground_truth_data`` in it and, since 2022, ``ground_truth_domain``;
        or ``eval_data_list.csv`` (a line with the machine type alone, then lines ``name,original name,label``); or a
        folder ``<machine type>/test/*.wav`` whose names say normal or anomaly
    year : of the challenge; None: the YAML's default

    Raises
    ------
    UserError : naming every row or clip that gives no label; or if it is of another year, or known to be wrong.
    """
    year = year or read_year(DEFAULT)
    truth, faults = _read(path, year)
    if (faults or not year.knows(truth)) and path.exists():
        others = [other.year for other in every_year() if other is not year and _is_of(path, other)]
        if others:
            raise common.UserError(f"{path}: a ground truth of {in_words(others)}; the score files are of {year.year}")
    if year.list_refused and path.is_file():
        raise common.UserError(f"{path}: the official list of {year.year} is not taken: {year.list_refused}")
    if faults:
        advice = f"The clips are of {year.year}: get the ground truth of that year again, or mend the names."
        raise common.fault_list("Ground truth with faults", faults, advice)
    return truth


def _read(path: Path, year: Year) -> tuple[Truth, list[str]]:
    """What is told of the test clips, their names read as those of ``year``, and the faults."""
    if labels_in := evaluators_folder(path):
        told, faults = _of_evaluator(labels_in, year)
    elif path.is_dir():
        told, faults = clips_in_folder(path, "--truth", year)
        faults += [f"{path}: {key[2]}: no normal or anomaly in its name" for key in told if told[key].label is None]
    else:
        told, _, faults = parsed_file(path, functools.partial(_parse_row, year=year), _clip_rows)
    truth: Truth = {}
    for (machine_type, unit, name), one in told.items():
        truth.setdefault((machine_type, unit), {})[name] = one
    return truth, faults


def _is_of(path: Path, year: Year) -> bool:
    """Whether a ground truth is one of ``year``."""
    try:
        truth, faults = _read(path, year)
    except common.UserError:
        return False
    return bool(truth) and not faults and year.knows(truth)


# ---- the official evaluators' folders ----


def evaluators_folder(path: Path) -> Path | None:
    """The folder with the files of labels, given that, the one above it, or the domains' beside it."""
    places = path.resolve().parent / LABELS if path.name == DOMAINS else path, path / LABELS
    return next((place for place in places if any(place.glob(f"{PREFIX}_*.csv"))), None)


def _of_evaluator(directory: Path, year: Year) -> tuple[Told, list[str]]:
    """What the evaluator's files of labels and domains tell, and their faults."""
    told: Told = {}
    faults = []
    for path in sorted(directory.glob(f"{PREFIX}_*.csv")):
        key = year.parse_file(path.name, PREFIX)
        if not key:
            faults.append(f"{path}: not of the form {year.file_name(PREFIX, '<machine type>', '<section>')}")
            continue
        labels, _, faults_of_file = parsed_file(path, _binary)
        of_domains = directory.resolve().parent / DOMAINS / path.name
        domains, _, faults_of_domains = parsed_file(of_domains, _binary) if of_domains.is_file() else ({}, {}, [])
        if domains and not faults_of_domains and domains.keys() != labels.keys():
            faults_of_domains = [f"{of_domains}: other clips than in {path}"]
        faults += faults_of_file + faults_of_domains
        for name, label in labels.items():
            try:
                said = year.parse(name)
                domain = year.domains[domains[name]] if name in domains else said.domain
                if year.unit_of(said.machine_id, said.domain) != key[1]:
                    raise ValueError(f"the file is of {key[1]}")
                if said.label not in (None, label) or said.domain not in (None, domain):
                    raise ValueError(f"its name says otherwise than its label {label} and domain {domain}")
                told[(*key, name)] = said._replace(label=label, domain=domain)
            except ValueError as error:
                faults.append(f"{path}: {name}: {error}")
    return told, faults


def _binary(row: Sequence[str]) -> tuple[str, int]:
    """Name, and 0 or 1, of a row ``name,0 or 1``."""
    if len(row) != 2:
        raise ValueError(f"{','.join(row)!r}; expected name,0 or 1")
    return row[0], binary(row[1])


# ---- the official list ----


def _clip_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of the clips' rows of the official list, the machine type behind them."""
    machine_type = ""
    for number, row in csv_rows(path):
        if len(row) == 1 and ".wav" not in row[0].lower():
            machine_type = row[0].strip()
        else:
            yield number, [*row, machine_type]


def _parse_row(row: Sequence[str], year: Year) -> tuple[tuple[str, str, str], ClipName]:
    """Machine type, unit, name and what is told of a row of the official list, its machine type behind it."""
    *cells, machine_type = row
    if not machine_type:
        raise ValueError("no line with a machine type above it")
    if len(cells) not in ((2, 3) if year.domains else (3,)) or (len(cells) == 3 and cells[2] not in ("0", "1")):
        raise ValueError(f"{','.join(cells)!r}; expected name,original name,0 or 1")
    name, original = cells[:2]
    given, full = parse_clip_name(name, year), parse_clip_name(original, year)
    label = int(cells[2]) if len(cells) == 3 else full.label
    same = given.machine_id == full.machine_id and given.domain in (None, full.domain)
    if label is None or full.label != label or not same:
        raise ValueError(f"{original} is not the original name of {name} with label {label}")
    return (machine_type, year.unit_of(given.machine_id, given.domain), name), full


# ---- the names in a dataset folder ----


def clips_in_folder(directory: Path, key: str, year: Year) -> tuple[Told, list[str]]:
    """What the names of a dataset folder's test clips tell, and those that are not of the year's form.

    Parameters
    ----------
    key : option or key of the YAML that names the folder
    """
    told: Told = {}
    faults = []
    for machine_type in machine_types_in(directory, key, year):
        for name, path in test_clip_paths(directory, machine_type, names="official", year=year).items():
            try:
                said = parse_clip_name(name, year)
                told[machine_type, year.unit_of(said.machine_id, said.domain), name] = said
            except ValueError as error:
                faults.append(f"{path}: {error}")
    return told, faults
