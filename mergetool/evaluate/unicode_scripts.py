"""Which scripts (Latin, Han, Cyrillic, ...) a text is written in, and whether an answer leaves those it should keep to."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

from mergetool.errors import DataError, nearest

# The scripts in everyday modern use (Unicode Standard Annex 31, table 5). A letter of another one is known by its Unicode name.
SCRIPTS = (
    "Latin", "Han", "Cyrillic", "Arabic", "Greek", "Hangul", "Hiragana", "Katakana", "Bopomofo", "Hebrew", "Thai",
    "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala",
    "Armenian", "Georgian", "Ethiopic", "Khmer", "Lao", "Myanmar", "Thaana", "Tibetan",
)  # fmt: skip
JAPANESE = frozenset({"Han", "Hiragana", "Katakana"})
_NO_SCRIPT = "Common"


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, Any], ...]:
    import regex

    shared = regex.compile(r"[\p{Script=Common}\p{Script=Inherited}\p{Script=Unknown}]")
    return ((_NO_SCRIPT, shared), *((name, regex.compile(rf"\p{{Script={name}}}")) for name in SCRIPTS))


@lru_cache(maxsize=8192)
def _script(letter: str) -> str:
    found = next((name for name, pattern in _patterns() if pattern.match(letter)), None)
    return found or unicodedata.name(letter, "Unknown").split(" ")[0].capitalize()


def scripts_of(text: str) -> frozenset[str]:
    """The scripts of a text's letters: Unicode's Script property. Digits, punctuation, marks and emoji have none."""
    return frozenset(map(_script, set(text))) - {_NO_SCRIPT}


def without_code(text: str) -> str:
    """The text without what stands in backquotes, fenced or inline: code is Latin in any language."""
    import regex

    return regex.sub(r"(?s)```.*?(?:```|\Z)|`[^`\n]*`", " ", text)


def expected_scripts(row: dict[str, Any]) -> frozenset[str]:
    """The scripts that an answer to this row may use.

    A row's own `scripts` (a list of names, or one) says so exactly: the target language of a translation. Else they
    are those of the prompt and of the reference answer (`completion`, `chosen` or `answer`) where there is one; and
    whoever writes kana may write all that Japanese is written in.

    Raises:
        DataError: `scripts` names a script that is not known.
    """
    if row.get("scripts"):
        named = [row["scripts"]] if isinstance(row["scripts"], str) else list(row["scripts"])
        if unknown := next((name for name in named if name not in SCRIPTS), None):
            raise DataError(f"unknown script '{unknown}' in a row's 'scripts'", nearest(str(unknown), SCRIPTS))
        return frozenset(named)
    found = frozenset().union(
        *(scripts_of(_plain(row[key])) for key in ("prompt", "completion", "chosen", "answer") if row.get(key))
    )
    return found | JAPANESE if found & {"Hiragana", "Katakana"} else found


def switches(answer: str, row: dict[str, Any]) -> bool:
    """Whether an answer has a letter, outside code, of a script that it should not use."""
    return bool(scripts_of(without_code(answer)) - expected_scripts(row))


def _plain(content: Any) -> str:
    """Text, or the texts of messages."""
    if isinstance(content, list):
        return "\n".join(str(message.get("content") or "") for message in content)
    return str(content)
