"""Labels of figures that are names of files and folders: fonts that have their characters, nothing taken for a formula.

matplotlib's own font has no Chinese, Japanese or Korean characters.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)
_missing: set[str] = set()  # characters that no installed font has, as the last ``for_texts`` found


@contextlib.contextmanager
def for_texts(texts: Iterable[str]) -> Iterator[None]:
    """Let matplotlib draw these texts with the installed fonts that have their characters.

    What no font has is said in the log, and ``drawable`` writes it out as code points.
    """
    import matplotlib

    families, missing = choose(set("".join(texts)))
    if missing:
        logger.warning(
            "figures: no installed font has %s; drawn as code points. Install a font with them, such as Noto Sans CJK",
            " ".join(sorted(missing)),
        )
    _missing.clear()
    _missing.update(missing)
    own = matplotlib.rcParams["font.family"]
    with matplotlib.rc_context({"font.family": [*own, *families]}):
        yield
    _missing.clear()


def drawable(text: str) -> str:
    """The text as matplotlib is to be given it: names of files and folders may hold anything.

    Characters that no font has become code points (U+88C5), dollars do not begin a formula, and a name that begins with
    an underscore is not left out of legends.
    """
    shown = "".join(f"U+{ord(character):04X} " if character in _missing else character for character in text)
    return " " * shown.startswith("_") + shown.strip().replace("$", r"\$")


def choose(characters: set[str]) -> tuple[list[str], set[str]]:
    """Families of installed fonts that have what matplotlib's font lacks, and the characters that none of them has."""
    from matplotlib import font_manager

    lacking = {character for character in characters if not character.isspace()}
    lacking -= _characters(Path(font_manager.findfont(font_manager.FontProperties())), lacking)
    families: list[str] = []
    for entry in _sans_first(font_manager.fontManager.ttflist):
        if not lacking:
            break
        if found := _characters(Path(entry.fname), lacking):
            families.append(entry.name)
            lacking -= found
    return families, lacking


def _sans_first(entries: Sequence) -> list:
    """Upright fonts of the usual weight; sans serif before others, in the order of their names.

    Without those that have a box for every character, or symbols in the place of letters.
    """
    plain = [entry for entry in entries if entry.style == "normal" and entry.weight in (400, "normal", "regular")]
    real = [entry for entry in plain if not any(word in entry.name for word in ("Last Resort", "NonUnicode"))]
    return sorted(real, key=lambda entry: ("Sans" not in entry.name, entry.name))


def _characters(path: Path, wanted: set[str]) -> set[str]:
    """Those of the characters that a font has; none of a font that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        glyphs = FT2Font(str(path)).get_charmap()
    except (OSError, RuntimeError):
        return set()
    return {character for character in wanted if ord(character) in glyphs}
