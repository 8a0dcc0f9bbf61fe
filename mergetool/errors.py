"""The errors that are the user's to mend.

Each carries what went wrong and where (``message``) and the next thing to do (``hint``). The command line prints
them as one line and exits with 2; anything that is not one of these is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MergetoolError(Exception):
    """Base of every error whose cure lies with the user.

    Args:
        message: what is wrong and where, without a full stop.
        hint: the next thing to do; printed after the message on the same line.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = " ".join(str(message).split())
        self.hint = " ".join(str(hint).split())
        super().__init__(f"{self.message}; {self.hint}" if self.hint else self.message)


class RecipeError(MergetoolError):
    """A recipe (YAML) or an option says something that cannot be carried out."""


class CheckpointError(MergetoolError):
    """A model directory is missing, damaged, or does not fit the others."""


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
