"""The challenge's submission package: built from the results and an authors file, checked, written as one zip.

A package is held in memory as ``{path in the task2 folder: content}``; nothing is ever extracted from a zip.
"""

import csv
import io
import itertools
import logging
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import yaml

import common
from audio.clips import machine_types_in, parse_clip_name, wav_paths
from challenge.meta_file import (
    LABEL,
    LINES_SHOWN,
    MAX_ABBREVIATION,
    Authors,
    Finding,
    check_meta,
    first_findings,
    is_count,
)
from config import Config, System
from evaluation import metrics, result_record, score_files
from evaluation.metrics import Key, evaluate
from evaluation.published import published_file
from evaluation.truth import read_truth
from storage import records
from storage.files import write_whole

LABEL_WORDS = "<last name of the corresponding author>_<institute>_task2_<1 to 4>"
NEAR_SCORE_FILE = re.compile(r"anomaly_score_(.+)_id_?(\d\d?)\.csv", re.IGNORECASE | re.ASCII)
REPORT_ENDING = ".technical_report.pdf"
MAX_FILES = 1000
MAX_NAME_BYTES = 255  # of a file or folder; the usual file systems take no more
MAX_DIRECTORY_BYTES = 2**20  # of a zip: the entries of MAX_FILES with the longest names
MAX_TOTAL_BYTES = 200 * 2**20
MAX_BYTES = {".pdf": 100 * 2**20, ".yaml": 2**16}  # the real meta files have 6 kB
MAX_BYTES_OF_OTHERS = 4 * 2**20  # the longest official score file has 555 rows, 20 kB
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same package gives the same bytes

METHODS = {  # by model type; None: nothing but a detector, or what the members say
    "dense_ae": "AE",
    "vae": "VAE",
    "conv_ae": "convolutional AE",
    "l2_softmax": "CNN",
    "dense_l2_softmax": "MLP",
    "neighbors": None,
    "fusion": None,
}
DETECTORS = {"lof": "LOF", "knn": "k-NN", "density": "k-NN", "softmax": None}
EMBEDDINGS = {"l2_softmax": "MobileNetV2", "dense_l2_softmax": "MLP"}
FEATURES = {  # by part of a descriptor
    "slow": "modulation spectrum",
    "fast": "modulation spectrum",
    "statistics": "log-mel energies",
}
AGGREGATES = {"mean": "average", "median": "median", "std": "standard deviation", "max": "maximum"}
DATA_USAGE = {"eval": "development", "dev+eval": "development, training"}

Files = dict[str, bytes]  # path in the task2 folder, "/" between folders -> content
Clips = dict[Key, list[str]]  # (machine type, machine ID) -> names of the evaluation clips

logger = logging.getLogger(__name__)


class Package(NamedTuple):
    """What is checked."""

    files: Files
    findings: list[Finding]  # of reading it
    whole: bool  # False: a single submission folder, which has no technical report


# ---- the clips that a package must score ----


def official_clips() -> Clips:
    """Names of the official evaluation clips: numbered from 0 in each machine ID."""
    published = published_file()
    return {
        (machine_type, machine_id): [f"{machine_id}_{number:08d}.wav" for number in range(sum(counts))]
        for machine_type, ids in published["test_clips"]["eval"].items()
        for machine_id, counts in ids.items()
    }


def clips_of_truth(path: Path) -> Clips:
    """Names of the clips in ``eval_data_list.csv``, or in a dataset folder."""
    if path.is_dir():
        return clips_of_folder(path)
    return {key: list(labels) for key, labels in read_truth(path).items()}


def clips_of_folder(eval_directory: Path) -> Clips:
    """Names of the clips in ``<eval_directory>/<machine type>/test``."""
    clips: Clips = {}
    faults = []
    for machine_type in machine_types_in(eval_directory, "eval_directory"):
        for path in wav_paths(eval_directory / machine_type / "test"):
            try:
                machine_id, _ = parse_clip_name(path.name)
            except ValueError as error:
                faults.append(f"{path}: {error}")
                continue
            clips.setdefault((machine_type, machine_id), []).append(path.name)
    if not clips and not faults:
        faults.append(f"no wav file in {eval_directory / '<machine type>' / 'test'}")
    if faults:
        raise common.fault_list("Evaluation clips", faults, "Mend eval_directory, or name the clips with --truth.")
    return clips


# ---- reading a package ----


def read_package(path: Path) -> Package:
    """Read a zip, a task2 folder, its parent, or a single submission folder.

    Raises
    ------
    UserError : if there is nothing that could be a package at ``path``.
    """
    if path.is_dir():
        return _read_folder(path.resolve())
    if not path.is_file():
        raise common.UserError(f"--check: no file or folder {path} (looked for {path.resolve()})")
    if not zipfile.is_zipfile(path):
        raise common.UserError(f"--check: {path} is not a zip file; expected a zip, a task2 or a submission folder")
    return _read_zip(path)


def _read_folder(path: Path) -> Package:
    """Package of a folder (absolute path)."""
    findings = []
    prefix, whole = "", True
    if (path / "task2").is_dir():
        path = path / "task2"
    elif LABEL.fullmatch(path.name) or any(path.glob("*.meta.yaml")) or any(path.glob("anomaly_score_*.csv")):
        prefix, whole = f"{path.name}/", False
    elif path.name != "task2":
        findings.append(Finding("", None, f"the folder is called {path.name}; expected task2"))
    found = list(itertools.islice((p for p in path.rglob("*") if p.is_file()), MAX_FILES + 1))
    _check_total(path, len(found), sum(file.stat().st_size for file in found))
    files: Files = {}
    for file in sorted(found):
        name = prefix + file.relative_to(path).as_posix()
        if too_large := _too_large(name, file.stat().st_size):
            findings.append(Finding(name, None, too_large))
            continue
        try:
            files[name] = file.read_bytes()
        except OSError as error:
            findings.append(Finding(name, None, f"cannot be read ({error.strerror})"))
    return Package(files, findings, whole)


def _read_zip(path: Path) -> Package:
    """Package of a zip; members are read into memory within bounds."""
    findings = []
    contents: Files = {}
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_total(path, len(members), sum(member.file_size for member in members))
            for member in members:
                name = member.orig_filename
                fault = _member_fault(member) or ("twice in the zip" if name in contents else "")
                if fault:
                    findings.append(Finding(name, None, fault))
                elif not member.is_dir():
                    try:
                        contents[name] = _read_member(archive, member)
                    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                        findings.append(Finding(name, None, f"broken in the zip: {error}"))
    except (zipfile.BadZipFile, struct.error, UnicodeDecodeError, OSError, NotImplementedError) as error:
        raise common.UserError(f"--check: {path} cannot be read as a zip: {error}") from error
    return _task2_of(contents, findings)


def _check_total(path: Path, n_files: int, n_bytes: int) -> None:
    """Raise UserError if there is more than any package holds."""
    if n_files > MAX_FILES or n_bytes > MAX_TOTAL_BYTES:
        more = "more than " if n_files > MAX_FILES else ""
        n_files = min(n_files, MAX_FILES)
        raise common.UserError(
            f"--check: {path} has {more}{n_files} files of {n_bytes} bytes; that is no submission package"
        )


def _check_directory(path: Path) -> None:
    """Raise UserError if a zip's directory is larger than any package's; zipfile would read it whole.

    Its size stands in the record at the file's end: 22 bytes, before a comment of at most 65,535.
    """
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 22 - 0xFFFF))
        tail = stream.read()
    end = tail[tail.rfind(b"PK\5\6") :]
    n_bytes = struct.unpack("<L", end[12:16])[0]
    if n_bytes > MAX_DIRECTORY_BYTES:
        raise common.UserError(f"--check: {path} has a directory of {n_bytes} bytes; that is no submission package")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Content of a member, unpacked piece by piece: what is packed may be far more than the directory says."""
    with archive.open(member) as stream:
        return b"".join(iter(lambda: stream.read(2**16), b""))


def _member_fault(member: zipfile.ZipInfo) -> str:
    """Why a member of a zip is not read, "" if it is."""
    name = member.orig_filename
    if "\\" in name:
        return "backslash in the name; folders are separated by / in a zip"
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in PurePosixPath(name).parts or "\0" in name:
        return "unsafe name: it would unpack outside the folder; expected task2/..."
    if any(len(part.encode()) > MAX_NAME_BYTES for part in name.split("/")):
        return f"name of more than {MAX_NAME_BYTES} bytes; file systems take no more"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a symbolic link; put the file itself into the zip"
    if member.flag_bits & 1:
        return "encrypted; expected a zip without a password"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed in a way that not every program can unpack; expected deflate"
    return _too_large(name, member.file_size)


def _too_large(name: str, size: int) -> str:
    """Fault of a file that is larger than any file of a package, "" if it is not."""
    bound = MAX_BYTES.get(PurePosixPath(name).suffix.lower(), MAX_BYTES_OF_OTHERS)
    return f"{size} bytes; not read, as a file of this kind has at most {bound}" if size > bound else ""


def _task2_of(contents: Files, findings: list[Finding]) -> Package:
    """Package of a zip's files by full name; the task2 folder is found even where it is not at the top."""
    matches = (re.match("(?:[^/]+/)?task2/", name, re.IGNORECASE) for name in contents)
    root = min((match[0] for match in matches if match), key=lambda root: (len(root), root), default="")
    if root != "task2/":
        where = f"called {root}" if root else "missing"
        findings.append(Finding("", None, f"the folder task2 is {where}; expected task2/ at the top of the zip"))
    files = {name[len(root) :]: content for name, content in contents.items() if name.startswith(root)}
    outside = Counter(name.partition("/")[0] for name in contents if not name.startswith(root))
    findings += [Finding(top, None, f"not in the folder task2 ({counted(n, 'file')})") for top, n in outside.items()]
    return Package(files, findings, True)


# ---- checking a package ----


def check_package(package: Package, clips: Clips) -> list[Finding]:
    """Everything that is wrong with a package, in the order of its files.

    Parameters
    ----------
    clips : the clips that each submission must score
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
    for folder, files in list(folders.items()):
        if not any(file.endswith((".csv", ".yaml", ".yml")) for file in files):
            findings.append(Finding(f"{folder}/", None, "unexpected folder"))
            del folders[folder]
    if not folders:
        findings.append(Finding("", None, f"no submission; expected folders {LABEL_WORDS}"))
    matches = {folder: LABEL.fullmatch(folder) for folder in folders}
    teams = sorted({match["team"] for match in matches.values() if match})
    if len(teams) > 1:
        findings.append(Finding("", None, f"different labels in one package: {', '.join(teams)}"))
    if package.whole:
        findings += _check_reports(reports, teams)
    for folder, files in folders.items():
        findings += check_submission(folder, files, clips)
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


def check_submission(folder: str, files: Files, clips: Clips) -> Iterator[Finding]:
    """Findings of one submission folder: its name, its meta file and its score files."""
    match = LABEL.fullmatch(folder)
    if not match:
        yield Finding(f"{folder}/", None, f"folder name is not of the form {LABEL_WORDS}")
    meta_name = f"{folder}.meta.yaml"
    metas = [file for file in files if file.endswith((".yaml", ".yml")) and "/" not in file]
    if meta_name not in metas:
        yield Finding(f"{folder}/", None, f"no meta file {meta_name}")
    found: dict[Key, str] = {}
    for file, content in files.items():
        shown = f"{folder}/{file}"
        if file in metas:
            if file != meta_name:
                yield Finding(shown, None, f"unexpected file; the meta file is {meta_name}")
            if file == meta_name or len(metas) == 1:
                yield from check_meta(shown, content, folder, sorted({machine_type for machine_type, _ in clips}))
            continue
        key = _score_key(file, clips)
        if key is None:
            yield Finding(shown, None, "unexpected file" + _unknown_machine(file, clips))
            continue
        wanted = score_files.score_path(Path(), *key).name
        if key in found:
            yield Finding(shown, None, f"second score file of {' '.join(key)}, beside {found[key]}")
        elif file != wanted:
            yield Finding(shown, None, f"misnamed; expected {wanted}")
        found[key] = file
        yield from check_scores(shown, content, key[1], clips[key])
    missing = [score_files.score_path(Path(), *key).name for key in clips if key not in found]
    if missing:
        yield Finding(f"{folder}/", None, f"{len(missing)} of {len(clips)} score files missing: {', '.join(missing)}")


def _score_key(file: str, clips: Clips) -> Key | None:
    """Machine that a score file is of, also where it is named ``id_5`` or ``Fan``; None if it is of none in clips."""
    match = NEAR_SCORE_FILE.fullmatch(file)
    if not match:
        return None
    wanted = (match[1].casefold(), f"id_{int(match[2]):02d}")
    return next((key for key in clips if (key[0].casefold(), key[1]) == wanted), None)


def _unknown_machine(file: str, clips: Clips) -> str:
    """What is wrong with a score file of no known machine, "" for any other file."""
    match = NEAR_SCORE_FILE.fullmatch(file)
    if not match:
        return ""
    ids = [machine_id for machine_type, machine_id in clips if machine_type.casefold() == match[1].casefold()]
    if not ids:
        return f": no machine type {match[1]} among the evaluation clips"
    return f": the evaluation clips of {match[1]} are of {', '.join(ids)}"


def check_scores(shown: str, content: bytes, machine_id: str, clips: Iterable[str]) -> Iterator[Finding]:
    """Findings of one score file: rows, numbers, and every clip once."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        yield Finding(shown, content[: error.start].count(b"\n") + 1, "not UTF-8 text")
        return
    if text.startswith("\ufeff"):
        yield Finding(shown, 1, "begins with a byte-order mark; save it as UTF-8 without one")
    clips = set(clips)
    first_lines: dict[str, int] = {}
    faults = []
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    try:
        for row in rows:
            if fault := _row_fault(row, machine_id, clips, first_lines):
                faults.append(Finding(shown, rows.line_num, fault))
            first_lines.setdefault(row[0] if row else "", rows.line_num)
    except csv.Error as error:
        faults.append(Finding(shown, rows.line_num, f"not CSV ({error})"))
    yield from first_findings(faults)
    missing = sorted(clips - set(first_lines))
    if missing:
        some = ", ".join(missing[:LINES_SHOWN]) + (", ..." if len(missing) > LINES_SHOWN else "")
        yield Finding(shown, None, f"{len(missing)} of {len(clips)} clips missing: {some}")


def _row_fault(row: Sequence[str], machine_id: str, clips: set[str], first_lines: Mapping[str, int]) -> str:
    """What is wrong with a row of a score file, "" if nothing is."""
    try:
        name, _ = score_files.parse_score_row(row, machine_id=machine_id)
    except ValueError as error:
        hint = "; two digits in id_<NN>" if row and re.match(r"id_\d_", row[0]) else ""
        return f"{error}{hint}"
    if name in first_lines:
        return f"{name} again, first in line {first_lines[name]}"
    return "" if name in clips else f"{name} is not a clip of the evaluation list"


# ---- building a package ----


def build(config: Config, authors: Authors, *, report: Path | None, clips: Clips) -> Package:
    """Package of the YAML's ``submissions``, as files in memory.

    Raises
    ------
    UserError : naming everything that has not been run yet or cannot be read.
    """
    files: Files = {}
    faults = []
    if report:
        try:
            files[f"{authors.team}{REPORT_ENDING}"] = report.read_bytes()
        except OSError as error:
            faults.append(f"--report-pdf: {report} cannot be read ({error.strerror})")
    for number, entry in sorted(config.submissions.items()):
        folder = f"{authors.team}_{number}"
        system = config.systems[entry.system]
        try:
            results = config.result_folder(entry.training_data, system.name)
            scores = score_files.score_files(results)
            parameters, sample_rate = model_facts(config.model_directory / entry.training_data, system)
            result_record.check(results, config=config, system=system, required=True)
        except common.UserError as error:
            data = "" if entry.training_data == "eval" else f" --training-data {entry.training_data}"
            options = f"-e{data} --system {system.name}"
            commands = f"python 00_train.py {options}, then python 01_test.py {options}"
            faults.append(f"submission {number}: {error} ({commands})")
            continue
        files |= {f"{folder}/{path.name}": path.read_bytes() for path in scores.values()}
        machine_types = sorted({machine_type for machine_type, _ in clips})
        block = {
            "submission": _submission_block(number, authors, f"{system.name} {entry.training_data}"),
            "system": _system_block(system, entry.training_data, sample_rate, parameters, authors.source_code),
            "results": {"development_dataset": dev_results(config, system, machine_types)},
        }
        text = yaml.safe_dump(block, sort_keys=False, allow_unicode=True, width=1000)
        files[f"{folder}/{folder}.meta.yaml"] = text.encode()
    if not config.submissions:
        faults.append("the YAML's block `submissions` is empty; expected 1 to 4 submissions")
    if faults:
        raise common.fault_list("No package written", faults, "Do what is missing, then run again.")
    return Package(files, [], True)


def model_facts(directory: Path, system: System) -> tuple[int, int]:
    """Number of parameters and sample rate [Hz] of a system, from the records in its model folder, or its members'.

    Where each machine type has its own model, the number is the size of one (the largest), not their sum: the
    official baseline and its kin state 269,992. Of the members of a fusion it is the sum; a detector has none.

    Parameters
    ----------
    directory : folder of the models of all systems with the same training data
    """
    if system.members:
        parameters, sample_rates = zip(*(model_facts(directory, member) for member in system.members), strict=True)
        return sum(parameters), max(sample_rates)
    names = ("sample_rate",) if system.model_type == "neighbors" else ("parameters", "sample_rate")
    facts = []
    for path in sorted((directory / system.name).glob("record_*.yaml")):
        try:
            record = records.read(path, {})
        except (OSError, ValueError) as error:
            raise common.UserError(f"{path}: not readable as YAML: {error}") from error
        for name in names:
            value = record.get(name)
            if not is_count(value):
                raise common.UserError(f"{path}: {name}: {value!r}; expected a whole number")
        facts.append((record.get("parameters", 0), record["sample_rate"]))
    if not facts:
        raise common.UserError(f"{directory / system.name}: no record_<machine type>.yaml of a trained model")
    return max(facts)


def _submission_block(number: int, authors: Authors, what: str) -> dict:
    """The meta file's ``submission``; name and abbreviation are made up where the user gives none."""
    name, abbreviation = authors.names.get(number, (None, None))
    short = f"{authors.institute[: MAX_ABBREVIATION - 2]}_{number}"
    return {
        "label": f"{authors.team}_{number}",
        "name": name or f"{authors.team.removesuffix('_task2')} {what}",
        "abbreviation": abbreviation or short,
        "authors": authors.authors,
    }


def _system_block(
    system: System, training_data: str, sample_rate: int, parameters: int, source_code: str | None
) -> dict:
    """The meta file's ``system``, fields in the official order."""
    parts = system.members or (system,)

    def together(words: Callable[[System], str | None]) -> str | None:  # of the members of a fusion, each once
        return ", ".join(dict.fromkeys(filter(None, map(words, parts)))) or None

    return {
        "description": {
            "input_sampling_rate": f"{sample_rate / 1000:g}kHz",
            "data_augmentation": together(lambda part: "mixup" if getattr(part.model, "mixup", 0) else None),
            "front_end": None,
            "acoustic_features": ", ".join(dict.fromkeys(name for part in parts for name in _features(part))),
            "embeddings": together(lambda part: EMBEDDINGS.get(part.model_type)),
            "machine_learning_method": together(_method),
            "aggregation_method": together(lambda part: AGGREGATES.get(getattr(part.model, "aggregate", None))),
            "ensemble_method_subsystem_count": len(system.members) or None,
            "decision_making": "weighted sum of standardised log scores" if system.members else None,
            "external_data_usage": together(
                lambda part: "pre-trained model" if getattr(part.model, "weights", None) else None
            ),
            "development_data_usage": DATA_USAGE[training_data],
        },
        "complexity": {"total_parameters": parameters},
        "source_code": source_code,
    }


def _features(part: System) -> list[str]:
    """What a system looks at."""
    names = [name for group in part.descriptor.parts for name in group] if part.descriptor else ["statistics"]
    return [FEATURES[name] for name in names]


def _method(part: System) -> str:
    """Kind of network, and what scores its output."""
    return ", ".join(filter(None, (METHODS[part.model_type], DETECTORS.get(getattr(part.model, "score", None)))))


def dev_results(config: Config, system: System, machine_types: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Development AUC and pAUC [%] of each machine type; None where the system was not run on it."""
    folder = config.result_folder("dev", system.name)
    path = folder / config.result_file
    averages = {}
    if result_record.check(folder, config=config, system=system):  # what result.csv should say, whoever edited it
        scores = score_files.read_folder(folder, any_names=config.names == "any", unlabelled=True)
        performance = evaluate(scores, max_fpr=config.max_fpr, rated_only=True)
        for machine_type, ids in performance.items():
            auc, pauc = metrics.averages(ids)
            averages[machine_type] = round(100 * auc, 4), round(100 * pauc, 4)
    elif path.exists():
        averages = read_averages(path)
    nothing = (None, None)
    pairs = {machine_type: averages.get(machine_type, nothing) for machine_type in machine_types}
    return {name: {"averaged_auc": auc, "averaged_pauc": pauc} for name, (auc, pauc) in pairs.items()}


def read_averages(path: Path) -> dict[str, tuple[float, float]]:
    """Machine type -> averaged AUC and pAUC [%] of an official ``result.csv``."""
    averages = {}
    machine_type = ""
    try:
        for row in csv.reader(path.read_text(encoding="utf-8").splitlines()):
            if len(row) == 1:
                machine_type = row[0]
            elif row and row[0] == "Average":
                auc, pauc = (round(100 * float(text), 4) for text in row[1:])
                averages[machine_type] = auc, pauc
    except (OSError, ValueError) as error:
        raise common.UserError(f"{path}: not a result file of 01_test.py ({error}); run 01_test.py -d again") from error
    return averages


# ---- from end to end ----


def check(package: Package, clips: Clips, shown: str, advice: str = "") -> None:
    """Log the notes on a package; raise all its faults as one error, which ends in ``advice``.

    Raises
    ------
    UserError : naming every fault with its file and line.
    """
    findings = check_package(package, clips)
    for note in findings:
        if not note.is_fault:
            logger.warning("%s", note)
    faults = [f"  {finding}" for finding in findings if finding.is_fault]
    if faults:
        lines = [f"{shown}: {counted(len(faults), 'fault')}", *faults, *([advice] if advice else [])]
        raise common.UserError("\n".join(lines))


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
