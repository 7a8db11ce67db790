"""The meta file of a submission and the authors file: one table of fields each, checked with line numbers."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import common
from storage.blocks import shown
from storage.strict_yaml import PlainLoader
from years.year import Year

LABEL = re.compile(r"(?P<team>(?P<name>[A-Za-z0-9-]+)_(?P<institute>[A-Za-z0-9-]+)_task2)_[1-4]")
MAX_ABBREVIATION = 10  # characters
RESULTS = "results.development_dataset"
LETTERS = str.maketrans({"ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "æ": "ae", "đ": "d"})
WRITTEN_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "å": "aa", "ø": "oe"})


class Finding(NamedTuple):
    """Something about a file of a package."""

    file: str  # "" where it concerns the whole package
    line: int | None
    text: str
    is_fault: bool = True  # otherwise the organisers accept it, but the user should know

    def __str__(self) -> str:
        """``file, line n: text``, without what a strange file name could do to a terminal."""
        place = self.file + (f", line {self.line}" if self.line else "")
        text = f"{place}: {self.text}" if place else self.text
        return "".join(c if c.isprintable() else "?" for c in text)


# ---- YAML with line numbers ----


@dataclass(frozen=True)
class Document:
    """Values of a YAML file, blocks and lists too, and their lines, by dotted paths: ``authors.1.email``."""

    values: dict[str, Any]  # "": all of it
    lines: dict[str, int]

    def line(self, path: str) -> int:
        """Line of a value, or of the last block above it that is there."""
        while path not in self.lines:
            path = path.rpartition(".")[0]
        return self.lines[path]


def read_document(shown: str, content: bytes) -> tuple[Document | None, list[Finding]]:
    """Parse a YAML file from others; None if it is none, and its findings."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, [Finding(shown, content[: error.start].count(b"\n") + 1, "not UTF-8 text")]
    document = Document({"": None}, {"": 1})
    try:
        loader = PlainLoader(text)
        root = loader.get_single_node()
        if root is not None:
            _add(document, loader, root, "", root.start_mark.line + 1)
        return document, []
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        block = getattr(error, "context_mark", None)
        begun = f", in what begins at line {block.line + 1}; indented as its neighbours?" if block else ""
        fault = Finding(shown, mark.line + 1 if mark else None, f"not valid YAML: {problem}{begun}")
    except RecursionError:
        fault = Finding(shown, None, "not a meta file: hundreds of nested blocks")
    return None, [fault]


def _add(document: Document, loader: yaml.SafeLoader, node: yaml.Node, path: str, line: int) -> None:
    """Put a node and all below it into a document; a dot in a key is no step of a path."""
    children = node.value if isinstance(node, yaml.MappingNode) else []
    for key, child in children:
        name = f"{path}.{str(key.value).replace('.', '·')}".lstrip(".")
        _add(document, loader, child, name, key.start_mark.line + 1)
    for number, child in enumerate(node.value if isinstance(node, yaml.SequenceNode) else [], 1):
        _add(document, loader, child, f"{path}.{number}".lstrip("."), child.start_mark.line + 1)
    try:
        document.values[path] = loader.construct_object(node, deep=True)
    except (ArithmeticError, ValueError, LookupError, AttributeError, TypeError) as error:  # the 31st of June, !!int no
        raise yaml.MarkedYAMLError(problem=f"{node.value!r}: {error}", problem_mark=node.start_mark) from error
    document.lines[path] = line


# ---- fields ----


class Rule(NamedTuple):
    """What a field may hold."""

    words: str
    accepts: Callable[[Any], bool]
    required: bool = True  # that the key stands there


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_percentage(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (is_number and (value == 0 or 1 < value <= 100))


def _or_null(rule: Rule, *, required: bool) -> Rule:
    return Rule(f"{rule.words} or !!null", lambda value: value is None or rule.accepts(value), required)


TEXT = Rule("text", _is_text)
TEXT_OR_NULL = _or_null(TEXT, required=True)
OPTIONAL = _or_null(TEXT, required=False)
SHORT = Rule(f"text of at most {MAX_ABBREVIATION} characters", lambda v: _is_text(v) and len(v) <= MAX_ABBREVIATION)
PERCENTAGE = Rule("a percentage such as 66.30 (not the fraction 0.6630) or !!null", _is_percentage, required=False)
AUTHOR_LIST = Rule("a list of authors", lambda value: isinstance(value, list) and bool(value))

DESCRIPTION = "system.description"
DESCRIPTION_RULES = {  # of fields that may hold other things than text or nothing
    "input_sampling_rate": Rule("text such as 16kHz", _is_text),
    "machine_learning_method": TEXT,
    "ensemble_method_subsystem_count": _or_null(Rule("a whole number", _is_count), required=True),
}
META_FIELDS = {  # of all years; the description's are the year's
    "submission.label": TEXT,
    "submission.name": TEXT,
    "submission.abbreviation": SHORT,
    "system.complexity.total_parameters": Rule("a whole number without separators", _is_count),
    "system.source_code": OPTIONAL,
    RESULTS: Rule("a block per machine type", lambda value: isinstance(value, dict)),
}
AUTHOR_FIELDS = {
    "lastname": TEXT,
    "firstname": TEXT,
    "email": Rule("an e-mail address", lambda value: _is_text(value) and bool(re.fullmatch(r"\S+@\S+", value.strip()))),
    "corresponding": Rule("true or false", lambda value: isinstance(value, bool), required=False),
    "affiliation.institution": TEXT,
    "affiliation.department": OPTIONAL,
    "affiliation.location": TEXT,
}
AUTHORS_FILE_FIELDS = {
    "institute": Rule(
        "its abbreviation in letters and digits", lambda v: isinstance(v, str) and re.fullmatch("[A-Za-z0-9-]+", v)
    ),
    "source_code": OPTIONAL,
    "submissions": Rule("blocks 1 to 4", lambda value: value is None or isinstance(value, dict), required=False),
    **{f"submissions.{n}.name": OPTIONAL for n in range(1, 5)},
    **{f"submissions.{n}.abbreviation": _or_null(SHORT, required=False) for n in range(1, 5)},
}


def _check_fields(file: str, document: Document, fields: Mapping[str, Rule]) -> Iterator[Finding]:
    """Fields that are missing or hold something else."""
    reported = set()
    for path, rule in fields.items():
        if path in document.values:
            if not rule.accepts(document.values[path]):
                text = f"{path}: {shown(document.values[path])}; expected {rule.words}"
                yield Finding(file, document.line(path), text)
        elif rule.required:
            absent, words = path, rule.words
            while (above := absent.rpartition(".")[0]) not in document.values:
                absent, words = above, "a block"
            if absent not in reported:
                reported.add(absent)
                yield Finding(file, document.line(path), f"{absent}: missing; expected {words}")


def _author_fields(document: Document, base: str) -> dict[str, Rule]:
    """Fields of the authors in the list ``base``."""
    authors = document.values.get(base)
    numbers = range(1, len(authors) + 1) if isinstance(authors, list) else ()
    return {base: AUTHOR_LIST} | {f"{base}.{n}.{name}": rule for n in numbers for name, rule in AUTHOR_FIELDS.items()}


def _corresponding(document: Document, base: str) -> list[str]:
    """Paths of the authors that are marked as corresponding."""
    paths = [path for path in document.values if path.rpartition(".")[0] == base]
    return [path for path in paths if document.values.get(f"{path}.corresponding") is True]


def _check_corresponding(shown: str, document: Document, base: str) -> Iterator[Finding]:
    """Exactly one of the authors, where there are any."""
    marked = _corresponding(document, base)
    if len(marked) != 1 and AUTHOR_LIST.accepts(document.values.get(base)):
        text = f"{base}: {len(marked)} corresponding authors; expected `corresponding: true` for exactly one"
        yield Finding(shown, document.line(f"{marked[-1]}.corresponding" if marked else base), text)


# ---- the meta file ----


def check_meta(shown: str, content: bytes, folder: str, machine_types: Sequence[str], year: Year) -> Iterator[Finding]:
    """Findings of one meta file of the submission folder ``folder``; ``machine_types`` are those of the results."""
    document, findings = read_document(shown, content)
    yield from findings
    if document is None:
        return
    figures = [f"{RESULTS}.{name}.{measure}" for name in machine_types for measure in year.meta["results"].values()]
    described = {f"{DESCRIPTION}.{n}": DESCRIPTION_RULES.get(n, TEXT_OR_NULL) for n in year.meta["description"]}
    fields = META_FIELDS | described | _author_fields(document, "submission.authors")
    fields["submission.label"] = Rule(f"{folder}, as the folder is called", lambda value: value == folder)
    fields |= dict.fromkeys(figures, PERCENTAGE)
    yield from _check_fields(shown, document, fields)
    yield from _check_corresponding(shown, document, "submission.authors")
    yield from _check_label(shown, document, folder)
    results = document.values.get(RESULTS)
    if not isinstance(results, dict):
        return
    for name in results.keys() - set(machine_types):
        text = f"{RESULTS}.{name}: unknown machine type; expected {', '.join(machine_types)}"
        yield Finding(shown, document.line(f"{RESULTS}.{name}"), text)
    absent = [path.removeprefix(f"{RESULTS}.") for path in figures if document.values.get(path) is None]
    if absent:
        text = f"{RESULTS}: no figure for {', '.join(absent)}; allowed, but wanted (01_test.py -d gives them)"
        yield Finding(shown, document.line(RESULTS), text, is_fault=False)


def _check_label(shown: str, document: Document, folder: str) -> Iterator[Finding]:
    """Whether the label begins with the corresponding author's last name; hyphens may be left out, ü be ue."""
    match = LABEL.fullmatch(folder)
    lastnames = [document.values.get(f"{path}.lastname") for path in _corresponding(document, "submission.authors")]
    if not match or len(lastnames) != 1 or not _is_text(lastnames[0]):
        return
    written_out = unicodedata.normalize("NFC", lastnames[0]).translate(WRITTEN_OUT)
    names = {label_name(name).casefold() for name in (lastnames[0], written_out)}
    if match["name"].replace("-", "").casefold() not in names and "" not in names:
        text = f"the label begins with {match['name']}, but the corresponding author is {lastnames[0]}"
        yield Finding(shown, document.line("submission.label"), text)


def label_name(lastname: str) -> str:
    """A last name in the letters that a label may have; "" if one of them has no such form."""
    letters = [c for c in unicodedata.normalize("NFKD", lastname.translate(LETTERS)) if not unicodedata.combining(c)]
    return "".join(c for c in letters if c.isalnum()) if all(c.isascii() for c in letters) else ""


# ---- the user's authors file ----


@dataclass(frozen=True)
class Authors:
    """What a package says of the people who submit it."""

    team: str  # <last name of the corresponding author>_<institute>_task2
    institute: str
    authors: list[dict]  # as they stand in a meta file
    source_code: str | None
    names: dict[int, tuple[str | None, str | None]]  # submission number -> name and abbreviation


def read_authors(path: Path) -> Authors:
    """Read and check the authors file; ``examples/authors.yaml`` shows its keys.

    Raises
    ------
    UserError : naming every fault with its line.
    """
    try:
        document, findings = read_document(str(path), path.read_bytes())
    except OSError as error:
        raise common.UserError(
            f"--authors: {path} cannot be read ({error.strerror}); copy examples/authors.yaml and fill it in"
        ) from error
    name = ""
    if document:
        fields = AUTHORS_FILE_FIELDS | _author_fields(document, "authors")
        findings += _check_fields(str(path), document, fields)
        findings += _check_corresponding(str(path), document, "authors")
        findings += _unknown_keys(str(path), document, fields)
    if document and not findings:
        lastname = document.values[f"{_corresponding(document, 'authors')[0]}.lastname"]
        name = label_name(lastname)
        if not name:
            findings.append(
                Finding(str(path), None, f"{lastname}: the label needs this last name in letters of A to Z")
            )
    if findings:
        raise common.fault_list("Authors file", [str(f) for f in findings], "examples/authors.yaml shows the form.")
    root = document.values[""]
    names = {
        int(number): ((entry or {}).get("name"), (entry or {}).get("abbreviation"))
        for number, entry in (root.get("submissions") or {}).items()
    }
    authors = [_plain_author(author) for author in root["authors"]]
    return Authors(f"{name}_{root['institute']}_task2", root["institute"], authors, root.get("source_code"), names)


def _unknown_keys(shown: str, document: Document, fields: Mapping[str, Rule]) -> Iterator[Finding]:
    """Keys that are none of the fields, nor blocks of them."""
    known = {""}
    for path in fields:
        names = path.split(".")
        known |= {".".join(names[:n]) for n in range(1, len(names) + 1)}
    for path in document.values:
        above = path.rpartition(".")[0]
        if path not in known and above in known:
            there = [other.rpartition(".")[2] for other in known if other and other.rpartition(".")[0] == above]
            yield Finding(shown, document.line(path), f"{path}: unknown key; there is {', '.join(sorted(there))}")


def _plain_author(author: Mapping) -> dict:
    """An author as in a meta file, fields in the official order."""
    plain = {name: author[name] for name in ("lastname", "firstname", "email")}
    if author.get("corresponding"):
        plain["corresponding"] = True
    affiliation = author["affiliation"]
    plain["affiliation"] = {name: affiliation.get(name) for name in ("institution", "department", "location")}
    return plain
