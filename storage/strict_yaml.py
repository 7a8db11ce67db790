"""YAML as plain values: nothing in it is executed, and what one reader takes for another thing is refused."""

import re
from pathlib import Path
from typing import Any

import yaml

MAX_KEYS = 10_000  # of one block
MAX_SHOWN = 80  # characters of a key in a message
DOUBLE = "while scanning a double-quoted scalar"  # PyYAML's words


def read_yaml(path: Path, *, aliases: bool = True) -> Any:
    """Content of a YAML file, see :func:`parse_yaml`; OSError if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not in UTF-8 ({error}); save it so") from error
    return parse_yaml(text, aliases=aliases)


def parse_yaml(text: str, *, aliases: bool) -> Any:
    """YAML as plain values.

    Parameters
    ----------
    aliases : False for files that we have written: aliases (``*name``) are refused, as by them a few lines are a
        billion values, and text such as 1e-3 stays text; True for files that people write

    Raises
    ------
    ValueError : if it is no YAML, in words that fit on a screen.
    """
    try:
        return yaml.load(text, Loader=_HandwrittenLoader if aliases else PlainLoader)
    except RecursionError:
        raise ValueError("its brackets or blocks are nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # PyYAML lets all of these through, such as OverflowError for a date, IndexError for an empty !!int
        advice = "\nIn double quotes a backslash begins a code: take single ones, or /" if DOUBLE in str(error) else ""
        raise ValueError(str(error)[:500] + advice) from error


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice; YAML would silently take the last."""

    def construct_mapping(self, node, deep=False):
        """Construct a mapping after looking for keys that occur twice."""
        names = set()
        for child, _ in node.value:
            if not isinstance(child, yaml.ScalarNode):
                continue  # no key of ours; PyYAML refuses those that Python cannot look up
            if child.value in names:
                fault = f"key {child.value[:MAX_SHOWN]} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, fault, child.start_mark)
            names.add(child.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node):
        """Take the keys of merged blocks (<<), a bounded number: blocks that merge blocks grow without end."""
        super().flatten_mapping(node)
        if len(node.value) > MAX_KEYS:
            fault = f"a block of more than {MAX_KEYS} keys"
            raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark)


class PlainLoader(_StrictLoader):
    """The same without aliases."""

    def compose_node(self, parent, index):
        """Compose a node unless it is an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias", self.peek_event().start_mark)
        return super().compose_node(parent, index)


class _HandwrittenLoader(_StrictLoader):
    """The same with numbers such as 1e-3, which YAML 1.1 takes for text."""


_HandwrittenLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
