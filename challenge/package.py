"""A submission package, held in memory: read from a zip or a folder, checked, written. Nothing is ever extracted."""

import csv
import difflib
import functools
import io
import itertools
import logging
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import common
from challenge.meta_file import LABEL, Finding, check_meta
from challenge.zips import member_fault, too_large
from evaluation import score_files
from evaluation.metrics import Key
from evaluation.truth import clips_in_folder, evaluators_folder, read_truth
from storage.files import write_whole
from years.year import KINDS, Year, of_files, read_year

LABEL_WORDS = "<last name of the corresponding author>_<institute>_task2_<1 to 4>"
REPORT_ENDING = ".technical_report.pdf"
MAX_FILES = 1000
MAX_TOTAL_BYTES = 200 * 2**20
MAX_BYTES = {".pdf": 100 * 2**20, ".yaml": 2**16}  # the real meta files have 6 kB
MAX_BYTES_OF_OTHERS = 4 * 2**20  # the longest official score file has 555 rows, 20 kB
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same package gives the same bytes

Files = dict[str, bytes]  # path in the task2 folder, "/" between folders -> content
Clips = dict[Key, list[str]]  # (machine type, machine ID or other unit) -> names of the evaluation clips

logger = logging.getLogger(__name__)


class Package(NamedTuple):
    """What is checked."""

    files: Files
    findings: list[Finding]  # of reading it
    whole: bool  # False: a single submission folder, which has no technical report


# ---- the clips that a package must score ----


def clips_at(path: Path, key: str, year: Year) -> Clips:
    """Names of the clips in ``eval_data_list.csv``, in a dataset folder, or in that of an official evaluator.

    Parameters
    ----------
    key : option or key of the YAML that names ``path``
    """
    if not path.is_dir() or evaluators_folder(path):
        return {unit: list(told) for unit, told in read_truth(path, year).items()}
    told, faults = clips_in_folder(path, key, year)
    if not told and not faults:
        faults = [f"no wav file in {path / '<machine type>' / 'test'}"]
    if faults:
        raise common.fault_list("Evaluation clips", faults, "Mend eval_directory, or name the clips with --truth.")
    clips: Clips = {}
    for machine_type, unit, name in told:
        clips.setdefault((machine_type, unit), []).append(name)
    return clips


# ---- reading ----


def read_package(path: Path) -> Package:
    """Read a zip, a task2 folder, its parent, or a single submission folder.

    Raises
    ------
    UserError : if there is nothing that could be a package at ``path``.
    """
    if path.is_dir():
        return _read_folder(path.resolve())
    if not zipfile.is_zipfile(path):
        raise common.UserError(f"--check: {path} is no zip file, and no folder task2 or of a submission")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_zip(path, archive)
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError, NotImplementedError) as error:
        raise common.UserError(f"--check: {path} cannot be read as a zip: {error}") from error


def _read_folder(path: Path) -> Package:
    """Package of a folder (absolute path)."""
    findings, is_single = [], False
    if (path / "task2").is_dir():
        path = path / "task2"
    elif path.name != "task2":
        of_submission = itertools.chain(path.glob("*.meta.yaml"), path.glob("anomaly_score_*.csv"))
        is_single = bool(LABEL.fullmatch(path.name)) or any(of_submission)
        if not is_single:
            findings.append(Finding("", None, f"the folder is called {path.name}; expected task2"))
    prefix = f"{path.name}/" if is_single else ""
    found = sorted(itertools.islice((file for file in path.rglob("*") if file.is_file()), MAX_FILES + 1))
    members = [(prefix + f.relative_to(path).as_posix(), f.stat().st_size, "", f.read_bytes) for f in found]
    files, faults = _read_all(path, members)
    return Package(files, findings + faults, not is_single)


def _read_zip(path: Path, archive: zipfile.ZipFile) -> Package:
    """Package of a zip, at whose top the folder task2 should be."""

    def content(member: zipfile.ZipInfo) -> bytes:
        with archive.open(member) as stream:
            return stream.read(member.file_size)  # no more is unpacked, whatever the member holds

    members = [
        (m.orig_filename, m.file_size, member_fault(m, _max_bytes(m.orig_filename)), functools.partial(content, m))
        for m in archive.infolist()
        if not m.is_dir()
    ]
    contents, findings = _read_all(path, members)
    files = {name: one for name, one in contents.items() if LABEL.fullmatch(name.partition("/")[0])}  # misplaced
    files |= {name.removeprefix("task2/"): one for name, one in contents.items() if name.startswith("task2/")}
    outside = Counter(name.partition("/")[0] for name in contents if not name.startswith("task2/"))
    text = "not in the folder task2 at the top of the zip"
    findings += [Finding(top, None, f"{text} ({counted(n, 'file')})") for top, n in outside.items()]
    return Package(files, findings, True)


def _read_all(path: Path, members: Sequence[tuple[str, int, str, Callable[[], bytes]]]) -> tuple[Files, list[Finding]]:
    """Contents of files, and findings, given (name, size, fault, function that reads it); within bounds."""
    if len(members) > MAX_FILES or sum(size for _, size, _, _ in members) > MAX_TOTAL_BYTES:
        raise common.UserError(
            f"--check: {path} has more than {MAX_FILES} files or {MAX_TOTAL_BYTES} bytes; that is no submission package"
        )
    files: Files = {}
    findings = []
    for name, size, fault, read in members:
        fault = fault or too_large(size, _max_bytes(name)) or ("twice in the zip" if name in files else "")
        try:
            if not fault:
                files[name] = read()
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            fault = f"cannot be read: {error}"
        if fault:
            findings.append(Finding(name, None, fault))
    return files, findings


def _max_bytes(name: str) -> int:
    return MAX_BYTES.get(PurePosixPath(name).suffix.lower(), MAX_BYTES_OF_OTHERS)


# ---- checking ----


def year_of(package: Package, default: int) -> Year:
    """Year of the challenge that a package is for, by the names of its score files."""
    names = [PurePosixPath(name).name for name in package.files]
    years = of_files([name for name in names if name.startswith(f"{score_files.SCORES}_")], score_files.SCORES)
    return read_year(default if default in years or not years else years[0])


def check_package(package: Package, clips: Clips, year: Year) -> list[Finding]:
    """Everything that is wrong with a package, in the order of its files.

    Parameters
    ----------
    clips : the clips that each submission must score
    year : of the challenge, whose files a package holds
    """
    findings = list(package.findings)
    folders: dict[str, Files] = {}
    reports: Files = {}
    for name, content in sorted(package.files.items()):
        folder, separator, file = name.partition("/")
        if separator:
            folders.setdefault(folder, {})[file] = content
        elif name.lower().endswith(".pdf"):
            reports[name] = content
        else:
            findings.append(Finding(name, None, "unexpected file"))
    labels = {folder: LABEL.fullmatch(folder) for folder in folders}
    teams = sorted({match["team"] for match in labels.values() if match})
    if not teams:
        findings.append(Finding("", None, f"no submission; expected folders {LABEL_WORDS}"))
    if len(teams) > 1:
        findings.append(Finding("", None, f"different labels in one package: {', '.join(teams)}"))
    if package.whole:
        findings += _check_reports(reports, teams)
    for folder, match in labels.items():
        if match:
            findings += check_submission(folder, folders[folder], clips, year)
        else:
            findings.append(Finding(f"{folder}/", None, f"unexpected folder; expected {LABEL_WORDS}"))
    return findings


def _check_reports(reports: Files, teams: Sequence[str]) -> Iterator[Finding]:
    """One technical report with the label's name, and a PDF indeed."""
    wanted = f"{teams[0] if teams else '<label>_task2'}{REPORT_ENDING}"
    if not reports:
        yield Finding("", None, f"no technical report yet; the organisers want {wanted}", is_fault=False)
    for name, content in reports.items():
        if name != wanted:
            yield Finding(name, None, f"unexpected name; the technical report is {wanted}")
        if not content.startswith(b"%PDF-"):
            yield Finding(name, None, "not a PDF file")


def check_submission(folder: str, files: Files, clips: Clips, year: Year) -> Iterator[Finding]:
    """Findings of one submission folder: its name, its meta file and its CSVs."""
    kinds = KINDS if year.decisions else KINDS[:1]
    wanted: dict[str, tuple[str, Key] | None] = {f"{folder}.meta.yaml": None}
    wanted |= {year.file_name(kind, *key): (kind, key) for kind in kinds for key in clips}
    missing = [name for name in wanted if name not in files]
    other_forms = []
    for file, content in files.items():
        shown, name = f"{folder}/{file}", file
        if file not in wanted:
            read_as = [year.file_name(kind, *key) for kind in kinds if (key := year.parse_file(file, kind))]
            close = difflib.get_close_matches(file, missing, n=1, cutoff=0.9)  # id_1, Fan, .yml
            name = next((one for one in [*read_as, *close] if one in missing), None)
            if name is None:
                yield Finding(shown, None, "unexpected file")
                continue
            missing.remove(name)
            if name in read_as:
                other_forms.append((file, name))
            else:
                yield Finding(shown, None, f"misnamed; expected {name}")
        if of_clips := wanted[name]:
            kind, key = of_clips
            yield from check_scores(shown, content, key[1], clips[key], year=year, kind=kind)
        else:
            yield from check_meta(shown, content, folder, result_types(clips, year), year)
    if other_forms:
        (file, name), n_files = other_forms[0], counted(len(other_forms), "file")
        text = f"{n_files} named otherwise, such as {file}; expected {name}. They are read all the same"
        yield Finding(f"{folder}/", None, text, is_fault=False)
    if missing:
        yield Finding(f"{folder}/", None, f"{len(missing)} of {len(wanted)} files missing: {', '.join(missing)}")


def result_types(clips: Clips, year: Year) -> list[str]:
    """Machine types whose development results a meta file states: in later years, others than are submitted."""
    return sorted(year.test_clips["dev"] if year.domains else {machine_type for machine_type, _ in clips})


def check_scores(
    shown: str, content: bytes, unit: str, clips: Iterable[str], *, year: Year, kind: str = score_files.SCORES
) -> Iterator[Finding]:
    """Findings of one score or decision file: rows, numbers, and every clip once."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        yield Finding(shown, content[: error.start].count(b"\n") + 1, "not UTF-8 text")
        return
    if text.startswith("\ufeff"):
        yield Finding(shown, 1, "begins with a byte-order mark; save it as UTF-8 without one")
    clips = set(clips)
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))

    def parse(row: Sequence[str]) -> tuple[str, float]:
        name, value = score_files.parse_score_row(row, unit=unit, kind=kind, year=year)
        if name not in clips:
            raise ValueError(f"{name} is not a clip of the evaluation list")
        return name, value

    try:
        _, first, faults = score_files.parsed(((rows.line_num, row) for row in rows), parse)
    except csv.Error as error:
        first, faults = {}, [(rows.line_num, f"not CSV ({error})")]
    yield from (Finding(shown, *fault) for fault in faults)
    missing = sorted(clips - set(first))
    if missing:
        yield Finding(shown, None, f"{len(missing)} of {len(clips)} clips missing: {score_files.some(missing)}")


# ---- from end to end ----


def check(package: Package, clips: Clips, year: Year, shown: str, advice: str) -> None:
    """Log the notes on a package; raise all its faults as one error, which ends in ``advice``.

    Raises
    ------
    UserError : naming every fault with its file and line.
    """
    findings = check_package(package, clips, year)
    for note in findings:
        if not note.is_fault:
            logger.warning("%s", note)
    faults = [str(finding) for finding in findings if finding.is_fault]
    if faults:
        raise common.fault_list(f"{shown}: {counted(len(faults), 'fault')}", faults, advice)


def write_zip(path: Path, files: Files) -> None:
    """Write a package as a zip, whole or not at all; the same files give the same bytes."""
    with write_whole(path) as beside, zipfile.ZipFile(beside, "w") as archive:
        for name, content in sorted(files.items()):
            member = zipfile.ZipInfo(f"task2/{name}", ZIP_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system, member.external_attr = 3, 0o644 << 16  # the same on Windows
            archive.writestr(member, content)


def summary(package: Package) -> str:
    """How much is in a package, in words."""
    folders = sorted({name.partition("/")[0] for name in package.files if "/" in name})
    n_scores = sum(name.endswith(".csv") for name in package.files)
    return f"{counted(len(folders), 'submission')} ({', '.join(folders)}), {counted(n_scores, 'score file')}"


def counted(number: int, noun: str) -> str:
    """``1 fault``, ``2 faults``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
