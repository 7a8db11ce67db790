"""The meta file of a submission and the authors file: their fields, checked with line numbers."""

import difflib
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import common

LABEL = re.compile(r"(?P<team>(?P<name>[A-Za-z0-9-]+)_(?P<institute>[A-Za-z0-9-]+)_task2)_[1-4]")
MAX_ABBREVIATION = 10  # characters
MAX_LABEL = 200  # letters of last name and institute; a file name has at most 255
MAX_BRACKETS = 200  # a minute of parsing at 60,000 of them
LINES_SHOWN = 5  # of the faults in one file's rows; of the others the line numbers


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


def first_findings(findings: Sequence[Finding]) -> list[Finding]:
    """The first few findings of one file, and the lines of the others."""
    shown, more = list(findings[:LINES_SHOWN]), findings[LINES_SHOWN:]
    if more:
        text = f"{len(more)} more such faults, in lines {_ranges([finding.line for finding in more])}"
        shown.append(Finding(more[0].file, None, text))
    return shown


def _ranges(numbers: Sequence[int]) -> str:
    """Increasing numbers as ``1-3, 5``."""
    runs = [list(run) for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else str(run[0][1]) for run in runs)


# ---- YAML with line numbers ----


@dataclass(frozen=True)
class Node:
    """A value of a YAML file and its line."""

    value: Any  # dict[str, Node], list[Node], or a plain value
    line: int

    def find(self, dotted: str) -> tuple["Node | None", int]:
        """Node under ``a.b.c``, None if it is not there, and its line or that of the last parent that is there."""
        node = self
        for name in dotted.split("."):
            if not isinstance(node.value, dict) or name not in node.value:
                return None, node.line
            node = node.value[name]
        return node, node.line

    def absent(self, dotted: str) -> str:
        """The first part of ``a.b.c`` that is not there: ``a.b`` where that is missing as a whole."""
        names = dotted.split(".")
        return next(part for n in range(len(names)) if self.find(part := ".".join(names[: n + 1]))[0] is None)

    def get(self, dotted: str) -> Any:
        """Value under ``a.b.c``, None if it is not there."""
        node, _ = self.find(dotted)
        return node.value if node else None

    def shown(self) -> str:
        """The value for an error message."""
        if isinstance(self.value, dict | list):
            return "a block" if isinstance(self.value, dict) else "a list"
        return "nothing" if self.value is None else repr(self.value)


def read_yaml(shown: str, content: bytes) -> tuple[Node | None, list[Finding]]:
    """Parse a YAML file from others; None if it is none, and its findings.

    Tabs are reported line by line and then taken as spaces, so that the other faults are found in the same go.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, [Finding(shown, content[: error.start].count(b"\n") + 1, "not UTF-8 text")]
    tabs = [number for number, line in enumerate(text.split("\n"), 1) if "\t" in line.partition("#")[0]]
    findings = first_findings([Finding(shown, n, "tab; not valid in YAML, use spaces") for n in tabs])
    try:
        return _parse_yaml(text.expandtabs(2)), findings
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        fault = Finding(shown, mark.line + 1 if mark else None, f"not valid YAML: {problem}")
    except RecursionError:
        fault = Finding(shown, None, "not a meta file: hundreds of nested blocks")
    return None, findings or [fault]  # where tabs are, they are the likely cause


def _parse_yaml(text: str) -> Node:
    """Tree of a YAML text of one document without aliases."""
    if text.count("[") + text.count("{") > MAX_BRACKETS:
        raise yaml.MarkedYAMLError(problem=f"more than {MAX_BRACKETS} brackets")
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="alias; write the value out", problem_mark=event.start_mark)
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Node(None, 1)
        tree = _node(loader, root)
        loader.construct_document(root)  # refuses tags of blocks, and keys that are lists
        return tree
    except (ArithmeticError, ValueError, LookupError, AttributeError, TypeError) as error:  # of !!timestamp {=: no}
        raise yaml.MarkedYAMLError(problem=str(error)) from error
    finally:
        loader.dispose()


def _node(loader: yaml.SafeLoader, node: yaml.Node) -> Node:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(loader, item) for item in node.value], line)
    if isinstance(node, yaml.ScalarNode):
        try:
            return Node(loader.construct_object(node), line)
        except (ArithmeticError, ValueError, LookupError, AttributeError) as error:  # the 31st of June, !!int nothing
            raise yaml.MarkedYAMLError(problem=f"{node.value!r}: {error}", problem_mark=node.start_mark) from error
    block: dict[str, Node] = {}
    for key, value in node.value:
        if str(key.value) in block:
            raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
        child = _node(loader, value)
        block[str(key.value)] = Node(child.value, key.start_mark.line + 1)
    return Node(block, line)


# ---- checking a meta file ----


class Rule(NamedTuple):
    """What a field may hold."""

    words: str
    accepts: Callable[[Any], bool]
    required: bool = True  # that the key stands there


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def is_count(value: Any) -> bool:
    """Whether a value of a YAML file is a whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


TEXT = Rule("text", _is_text)
TEXT_OR_NULL = Rule("text or !!null", lambda value: value is None or _is_text(value))
OPTIONAL = Rule("text or !!null", TEXT_OR_NULL.accepts, required=False)

META_FIELDS = {
    "submission.label": TEXT,
    "submission.name": TEXT,
    "submission.abbreviation": TEXT,
    "system.description.input_sampling_rate": Rule("text such as 16kHz", _is_text),
    "system.description.data_augmentation": TEXT_OR_NULL,
    "system.description.front_end": TEXT_OR_NULL,
    "system.description.acoustic_features": TEXT_OR_NULL,
    "system.description.embeddings": TEXT_OR_NULL,
    "system.description.machine_learning_method": TEXT,
    "system.description.aggregation_method": TEXT_OR_NULL,
    "system.description.ensemble_method_subsystem_count": Rule(
        "a whole number or !!null", lambda value: value is None or is_count(value)
    ),
    "system.description.decision_making": TEXT_OR_NULL,
    "system.description.external_data_usage": TEXT_OR_NULL,
    "system.description.development_data_usage": TEXT_OR_NULL,
    "system.complexity.total_parameters": Rule("a whole number without separators", is_count),
    "system.source_code": OPTIONAL,
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


def check_meta(shown: str, content: bytes, folder: str, machine_types: Sequence[str]) -> Iterator[Finding]:
    """Findings of one meta file of the submission folder ``folder``."""
    meta, findings = read_yaml(shown, content)
    yield from findings
    if meta is None:
        return
    yield from _check_fields(shown, meta, META_FIELDS)
    yield from _check_abbreviation(shown, meta, "submission.abbreviation")
    yield from _check_authors(shown, meta, "submission.authors")
    label, line = meta.find("submission.label")
    if label and label.value != folder:
        yield Finding(shown, line, f"submission.label: {label.shown()}; the folder is called {folder}")
    match = LABEL.fullmatch(folder)
    lastnames = [author.get("lastname") for author in _corresponding(meta.get("submission.authors"))]
    if match and len(lastnames) == 1 and _is_text(lastnames[0]) and not _names(match["name"], lastnames[0]):
        text = f"the label begins with {match['name']}, but the corresponding author is {lastnames[0]}"
        yield Finding(shown, line, text)
    yield from _check_results(shown, meta, machine_types)


def _check_fields(shown: str, block: Node, fields: Mapping[str, Rule], where: str = "") -> Iterator[Finding]:
    """Fields that are missing or hold something else."""
    reported = set()
    for dotted, rule in fields.items():
        node, line = block.find(dotted)
        if node is None and rule.required:
            absent = block.absent(dotted)
            if absent in reported:
                continue
            reported.add(absent)
            words = rule.words if absent == dotted else "a block"
            yield Finding(shown, line, f"{where}{absent}: missing{_nearest_key(block, absent)}; expected {words}")
        elif node is not None and not rule.accepts(node.value):
            yield Finding(shown, line, f"{where}{dotted}: {node.shown()}; expected {rule.words}")


def _nearest_key(block: Node, dotted: str) -> str:
    """The misspelt key that is there in place of ``dotted``."""
    parent, _, name = dotted.rpartition(".")
    keys = block.get(parent) if parent else block.value
    close = difflib.get_close_matches(name, keys, n=1) if isinstance(keys, dict) else []
    return f" (there is {close[0]})" if close else ""


def _check_abbreviation(shown: str, block: Node, dotted: str) -> Iterator[Finding]:
    node, line = block.find(dotted)
    if node and _is_text(node.value) and len(node.value) > MAX_ABBREVIATION:
        text = f"{node.value!r} has {len(node.value)} characters; at most {MAX_ABBREVIATION} are allowed"
        yield Finding(shown, line, f"{dotted}: {text}")


def _check_authors(shown: str, block: Node, dotted: str) -> Iterator[Finding]:
    """Fields of each author, and exactly one corresponding author."""
    authors, line = block.find(dotted)
    if authors is None or not isinstance(authors.value, list) or not authors.value:
        yield Finding(shown, line, f"{dotted}: {authors.shown() if authors else 'missing'}; expected a list of authors")
        return
    for number, author in enumerate(authors.value, 1):
        yield from _check_fields(shown, author, AUTHOR_FIELDS, f"author {number}: ")
    marked = _corresponding(authors.value)
    if not marked:
        yield Finding(shown, line, f"{dotted}: no corresponding author; expected `corresponding: true` for one of them")
    for author in marked[1:]:
        first = marked[0].get("lastname")
        yield Finding(
            shown, author.find("corresponding")[1], f"{dotted}: second corresponding author, after {first}; only one"
        )


def _corresponding(authors: Any) -> list[Node]:
    """The authors that are marked as corresponding."""
    return [author for author in authors if author.get("corresponding") is True] if isinstance(authors, list) else []


def _check_results(shown: str, meta: Node, machine_types: Sequence[str]) -> Iterator[Finding]:
    """Development results: percentages where there are any."""
    dotted = "results.development_dataset"
    results, line = meta.find(dotted)
    if results is None or not isinstance(results.value, dict):
        text = f"{dotted}: {results.shown() if results else 'missing'}; expected a block per machine type"
        yield Finding(shown, line, text)
        return
    for name, node in results.value.items():
        if name not in machine_types:
            yield Finding(
                shown, node.line, f"{dotted}.{name}: unknown machine type; expected {', '.join(machine_types)}"
            )
    absent = []
    for machine_type in machine_types:
        for measure in ("averaged_auc", "averaged_pauc"):
            node, line_of_node = results.find(f"{machine_type}.{measure}")
            if node is None or node.value is None:
                absent.append(f"{machine_type}.{measure}")
            elif fault := _percentage_fault(node.value):
                yield Finding(shown, line_of_node, f"{dotted}.{machine_type}.{measure}: {node.shown()} {fault}")
    if absent:
        yield Finding(
            shown,
            line,
            f"{dotted}: no figure for {', '.join(absent)}; allowed, but wanted (01_test.py -d gives them)",
            is_fault=False,
        )


def _percentage_fault(value: Any) -> str:
    """What is wrong with an AUC in percent, "" if nothing is."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        return "is not a number from 0 to 100; expected a percentage"
    return f"is a fraction; expected a percentage, {100 * value:.2f}" if 0 < value <= 1 else ""


def _names(label_name: str, lastname: str) -> bool:
    """Whether the first part of a label is the last name; accents and hyphens may be spelt one way or another."""
    parts = (
        re.escape(c) if c.isascii() and c.isalnum() else "-?" if c.isascii() else "[a-z0-9]+"
        for c in unicodedata.normalize("NFC", lastname.strip())
    )
    return re.fullmatch("".join(parts), label_name, re.IGNORECASE) is not None


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
    """Read and check the authors file; ``authors_example.yaml`` shows its keys.

    Raises
    ------
    UserError : naming every fault with its line.
    """
    try:
        root, findings = read_yaml(str(path), path.read_bytes())
    except OSError as error:
        raise common.UserError(
            f"--authors: {path} cannot be read ({error.strerror}); copy authors_example.yaml and fill it in"
        ) from error
    if root is not None:
        findings += _check_authors_file(str(path), root)
    lastname = _corresponding(root.get("authors"))[0].get("lastname") if root and not findings else ""
    name = _label_name(lastname)
    if root and not findings and not name:
        findings.append(Finding(str(path), None, f"{lastname}: the label needs this last name in letters of A to Z"))
    if root and not findings and len(name + root.get("institute")) > MAX_LABEL:
        findings.append(Finding(str(path), None, f"last name and institute: at most {MAX_LABEL} letters together"))
    if findings:
        raise common.fault_list("Authors file", [str(f) for f in findings], "authors_example.yaml shows the form.")
    institute = root.get("institute")
    names = {
        int(number): (entry.get("name"), entry.get("abbreviation"))
        for number, entry in (root.get("submissions") or {}).items()
    }
    authors = [_plain_author(author) for author in root.get("authors")]
    return Authors(f"{name}_{institute}_task2", institute, authors, root.get("source_code"), names)


def _check_authors_file(shown: str, root: Node) -> Iterator[Finding]:
    fields = {
        "institute": Rule(
            "its abbreviation in letters and digits", lambda v: _is_text(v) and bool(re.fullmatch("[A-Za-z0-9-]+", v))
        ),
        "source_code": OPTIONAL,
        "submissions": Rule("blocks 1 to 4", lambda v: v is None or isinstance(v, dict), required=False),
    }
    yield from _check_fields(shown, root, fields)
    known = [*fields, "authors"]
    for name, node in root.value.items() if isinstance(root.value, dict) else ():
        if name not in known:
            yield Finding(shown, node.line, f"{name}: unknown key; there is {', '.join(known)}")
    yield from _check_authors(shown, root, "authors")
    submissions = root.get("submissions")
    for number, entry in submissions.items() if isinstance(submissions, dict) else ():
        where = f"submissions.{number}."
        if number not in ("1", "2", "3", "4"):
            yield Finding(shown, entry.line, f"submissions.{number}: expected a number from 1 to 4")
        yield from _check_fields(shown, entry, {"name": OPTIONAL, "abbreviation": OPTIONAL}, where)
        yield from _check_abbreviation(shown, root, f"{where}abbreviation")


def _label_name(lastname: str) -> str:
    """A last name in the letters that a label may have; "" if one of them has no such form."""
    spelt = lastname.translate(str.maketrans({"ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "æ": "ae", "đ": "d"}))
    letters = [c for c in unicodedata.normalize("NFKD", spelt) if not unicodedata.combining(c)]
    return "".join(c for c in letters if c.isalnum()) if all(c.isascii() for c in letters) else ""


def _plain_author(author: Node) -> dict:
    """An author as in a meta file, fields in the official order."""
    plain: dict = {name: author.get(name) for name in ("lastname", "firstname", "email")}
    if author.get("corresponding"):
        plain["corresponding"] = True
    plain["affiliation"] = {
        name: author.get(f"affiliation.{name}") for name in ("institution", "department", "location")
    }
    return plain
