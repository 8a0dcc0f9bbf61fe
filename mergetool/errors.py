"""The errors that are the user's to mend.

Each carries what went wrong and where (``message``) and the next thing to do (``hint``). The command line prints
them as one line and exits with 2; anything that is not one of these is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

# Access tokens of the Hub: hf_ and letters, and the longer kinds that logins in a browser and in CI give.
_TOKEN = re.compile(r"(?:hf_(?:oauth|jwt|app)_[\w.-]{8,}|(?:hf|api_org)_[A-Za-z0-9]{12,})")
_SECRET_NAMES = ("_TOKEN", "_API_KEY")


class MergetoolError(Exception):
    """Base of every error whose cure lies with the user.

    Args:
        message: what is wrong and where, without a full stop.
        hint: the next thing to do; printed after the message on the same line.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = without_tokens(" ".join(str(message).split()))
        self.hint = without_tokens(" ".join(str(hint).split()))
        super().__init__(f"{self.message}; {self.hint}" if self.hint else self.message)


class RecipeError(MergetoolError):
    """A recipe (YAML) or an option says something that cannot be carried out."""


class CheckpointError(MergetoolError):
    """A model directory is missing, damaged, or does not fit the others."""


class HubError(CheckpointError):
    """The Hub cannot be reached, or refuses; whole files that have arrived are kept."""


class DataError(MergetoolError):
    """A data file is missing, empty, or has a row that cannot be used."""


class OutputError(MergetoolError):
    """The output cannot be written where the user asked for it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word closest to `word`, or lists the known ones."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(known)}"


def without_tokens(text: str) -> str:
    """The text with every access token made unreadable: what looks like one, and the values of *_TOKEN and *_API_KEY.

    Whatever is printed or written that is not our own words (messages of libraries, tracebacks) goes through here.
    """
    for name, value in os.environ.items():
        if name.endswith(_SECRET_NAMES) and len(value.strip()) >= 8:
            text = text.replace(value.strip(), "***")
    return _TOKEN.sub("hf_***", text)
