"""Blocks of a YAML as dataclasses: the kinds of values in them, and what pydantic finds wrong, in our words."""

import difflib
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticCustomError

KEYS = ConfigDict(extra="forbid", allow_inf_nan=False)  # of every dataclass that is a block
MAX_INT = 2**31 - 1  # of whole numbers: TensorFlow counts in 32 bits
MAX_NAME_BYTES = 200  # of a file or folder; file systems take 255, and a file that is being written has a longer name
MAX_SHOWN = 80  # characters of a value in a message
KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "True or False",
    "string": "text",
    "array": "a list, for example [128, 8, 128]",
    "object": "keys with values",
}
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "multipleOf": "a multiple of",
}

Faults = dict[tuple, str]  # keys that lead there, such as ("fit", "epochs") -> what is wrong


# ---- kinds of values ----


def whole(low: int, high: int = MAX_INT, **rules: Any) -> Any:
    """Type of a whole number from ``low`` to ``high``; True is none."""
    return Annotated[StrictInt, Field(ge=low, le=high, **rules)]


def number(**bounds: float) -> Any:
    """Type of a finite number within pydantic's ``ge``, ``gt``, ``le`` and ``lt``; text and True are none."""
    return Annotated[StrictFloat, Field(**bounds)]


def filled(kind: Any, **rules: Any) -> Any:
    """Type of a list or mapping that is not empty."""
    return Annotated[kind, Field(min_length=1, **rules)]


def is_plain_name(name: Any) -> bool:
    """True for text that can be the name of a file or folder on every system, and leads to no other folder."""
    plain = isinstance(name, str) and name.isprintable() and name not in ("", ".", "..")
    return plain and not set(name) & set('/\\:*?"<>|') and len(name.encode()) <= MAX_NAME_BYTES


def _file_name(name: str) -> str:
    if not is_plain_name(name):
        raise PydanticCustomError("expected", "a file name without folders")
    return name


def _path(text: Any) -> Any:
    """A path as people write it: ~ is their home folder. What is no text is pydantic's to refuse."""
    if not isinstance(text, str):
        return text
    if not text.encode():  # nor half of a surrogate pair, which no file can be called: an error of this type too
        raise ValueError
    if min(text) < " ":
        words = r"a path without control characters; in double quotes, \t and \n are such: take single quotes, or /"
        raise PydanticCustomError("expected", words)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise PydanticCustomError("expected", "a path; this name after ~ is no user's") from None


def _path_text(text: str) -> str:
    path = _path(text)
    return str(path) if text.startswith("~") else text  # another stays as it is written


FilePath = Annotated[Path, BeforeValidator(_path)]
PathText = Annotated[str, AfterValidator(_path_text)]
FileName = Annotated[str, AfterValidator(_file_name)]


# ---- faults ----


def read_block(kind: Any, block: Any, faults: Faults, where: tuple = (), context: Any = None) -> Any:
    """Instance of a pydantic dataclass, or a value of another type, from what the YAML says.

    Parameters
    ----------
    faults : gets what is wrong, one fault for each key; the instance is None then
    where : keys that lead to ``block``
    context : for validators that ask for it
    """
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python(block, context=context)
    except ValidationError as error:
        schema = adapter.json_schema()
        for fault in error.errors(include_url=False):
            keys, words = _told(schema, fault)
            faults.setdefault((*where, *keys), words)  # the first of a list or a union
    return None


def _told(schema: dict, fault: dict) -> tuple[tuple, str]:
    """Keys that lead to one of pydantic's faults, and the fault in our words."""
    what, at, value = fault["type"], fault["loc"], fault["input"]
    keys, schema = _followed(schema, at[:-2] if at[-1:] == ("[key]",) else at)
    if what in ("unexpected_keyword_argument", "invalid_key"):
        name = value if what == "invalid_key" else at[-1]  # of a key that is no text, ``loc`` has its text
        return (*keys, name), f"unknown key; {nearest(name, schema['properties'])}"
    if what in ("missing", "told"):
        return keys, "missing" if what == "missing" else fault["msg"]
    words = fault["msg"] if what == "expected" else _expected(schema, too_high=what == "less_than_equal")
    close = difflib.get_close_matches(value, schema.get("enum", ()), n=1) if isinstance(value, str) else ()
    return keys, f"{shown(value)}; expected {words}{f'; did you mean {close[0]}?' if close else ''}"


def _followed(schema: dict, at: tuple) -> tuple[tuple, dict]:
    """Keys of the YAML in pydantic's ``loc``, which counts in lists and names types too, and where they lead to."""
    definitions, keys = schema.get("$defs", {}), []
    for key in (*at, None):
        kinds = _kinds(schema)
        schema = kinds[0] if len(kinds) == 1 else schema
        schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        if key in schema.get("properties", ()):
            schema = schema["properties"][key]
        elif key is not None and isinstance(schema.get("additionalProperties"), dict):
            schema = schema["additionalProperties"]
        elif isinstance(key, int) and "items" in schema:
            schema = schema["items"]
            continue
        else:  # the end, an unknown key or a type of a union
            break
        keys.append(key)
    return tuple(keys), schema


def _kinds(schema: dict) -> list[dict]:
    """What a value may be, apart from null."""
    return [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]


def _expected(schema: dict, *, too_high: bool) -> str:
    """What a value may be, in words; the bound of all whole numbers is one of them where it is ``too_high``."""
    if "anyOf" in schema:
        return " or ".join(_expected(kind, too_high=too_high) for kind in _kinds(schema))
    if "const" in schema or "enum" in schema:
        return schema.get("const") or f"one of {', '.join(schema['enum'])}"
    words = "a path" if schema.get("format") == "path" else KINDS[schema["type"]]
    bounds = [
        f"{word} {schema[name]}"
        for name, word in BOUNDS.items()
        if name in schema and (too_high or schema[name] != MAX_INT)
    ]
    note = f" ({schema['description']})" if "description" in schema and "properties" not in schema else ""
    return f"{words} {' and '.join(bounds)}".rstrip() + note


def in_order(faults: Faults, block: Any) -> list[str]:
    """A line for each fault, in the order of the keys in ``block``, the file's content."""
    ordered = sorted(faults, key=lambda keys: _place(block, keys))
    return [f"{'.'.join(map(key_text, keys)) or 'the file'}: {faults[keys]}" for keys in ordered]


def _place(block: Any, keys: tuple) -> list[int]:
    """Where a key stands: its number in each block; a missing one comes last."""
    if not keys or not isinstance(block, dict):
        return []
    names = list(block)
    place = names.index(keys[0]) if keys[0] in names else len(names)
    return [place, *_place(block.get(keys[0]), keys[1:])]


def shown(value: Any) -> str:
    """A value as Python writes it, cut to what a message can hold: an alias may hide a billion values."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"  # Python does not write the largest
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, MAX_SHOWN, MAX_SHOWN
    text = short.repr(value)
    return text if len(text) <= 2 * MAX_SHOWN else f"{text[: 2 * MAX_SHOWN]}..."


def merged(general: Any, own: Any) -> Any:
    """A block with another's values in their place, also in the blocks within."""
    if own is None or not isinstance(general, dict | None):
        return general
    if general is None or not isinstance(own, dict):
        return own
    inner = {name: value for name, value in own.items() if isinstance(value, dict)}
    inner = {name: general[name] | value for name, value in inner.items() if isinstance(general.get(name), dict)}
    return general | own | inner


def key_text(key: Any) -> str:
    """A key, cut to what a message can hold."""
    return key[:MAX_SHOWN] if isinstance(key, str) else shown(key)


def nearest(name: Any, known: Iterable[str]) -> str:
    """What the user may have meant, and all there is."""
    close = difflib.get_close_matches(key_text(name), known, n=1)
    return (f"did you mean {close[0]}? There" if close else "there") + f" is {', '.join(known)}"
