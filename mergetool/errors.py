"""Errors that the user can correct.

Each carries what went wrong and where (``message``) and the next thing to do (``hint``). The command line prints
them as one line and exits with 2; anything that is not one of these is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from urllib.parse import quote

# Access tokens of the Hub: hf_ and letters, and the longer kinds that logins in a browser and in CI give.
_TOKEN = re.compile(r"(?:hf_(?:oauth|jwt|app)_[\w.-]{8,}|(?:hf|api_org)_[A-Za-z0-9]{12,})")
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_USER = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@'\"]+@")  # of an address: a user and a password
_SECRET_NAMES = ("_TOKEN", "_API_KEY")


class MergetoolError(Exception):
    """Base of every error whose cure lies with the user.

    Args:
        message: what is wrong and where, without a full stop.
        hint: the next thing to do; printed after the message on the same line.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = plain(without_tokens(" ".join(str(message).split())))
        self.hint = plain(without_tokens(" ".join(str(hint).split())))
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


_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
# What the operating system says, and the next step; else it is "check the disk and permissions".
_RAISE = "close programs, or raise `ulimit -n`, and run again; what is finished is kept"
_STEPS: dict[int, str] = {
    **dict.fromkeys(_FULL, "make room and run again"),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE), "close programs, or raise `ulimit -n`, and run again; what is finished is kept"
    ),
    **dict.fromkeys((errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS), "choose a place on a file system that knows locks"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "check its permissions"),
    errno.EOVERFLOW: "it is not what its name says; fetch or make it again",
    errno.EROFS: "choose a place that can be written to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "remove the links that lead to themselves",
    errno.ENOMEM: "close programs, or run with fewer threads or workers",
    errno.EAGAIN: "raise `ulimit -u`, or run with fewer threads or workers",
}
_STEP = "check the disk and permissions"


def next_step(error: OSError) -> str:
    """What to do about what the operating system refused."""
    return _STEPS.get(error.errno or 0, _STEP)


def _refused(error: OSError) -> tuple[str, str]:
    file = error.filename2 or error.filename  # of a copy, what it is copied to
    where = f"{file}: " if file else ""
    return f"{where}{'the disk is full' if error.errno in _FULL else error.strerror or error}", next_step(error)


def _json(error: json.JSONDecodeError) -> tuple[str, str] | None:
    file = getattr(error, "filename", None)
    return (f"{file}: is not valid JSON ({error})", "fetch or make the file again") if file else None


def _unicode(error: UnicodeDecodeError) -> tuple[str, str] | None:
    file = getattr(error, "filename", None)
    return (f"{file}: is not UTF-8 text", "save the file as UTF-8") if file else None


def _memory(error: BaseException) -> tuple[str, str]:
    return "there is not enough memory", "close programs, or run with fewer threads, workers or rows at a time"


# THE table from an exception that is not ours to (what is wrong, the next step); None: it does not say, and is a bug.
_TABLE: tuple[tuple[type[BaseException], Callable[..., tuple[str, str] | None]], ...] = (
    (OSError, _refused),
    (json.JSONDecodeError, _json),
    (UnicodeDecodeError, _unicode),
    (MemoryError, _memory),
)
_OS_ERROR = re.compile(r"\(os error (\d{1,4})\)")
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|out of memory|cannot allocate memory", re.IGNORECASE)


# What a library stumbles over afterwards, with an error of another kind: closing a file that could not be written.
_LASTING = _FULL | {errno.EMFILE, errno.ENFILE, errno.EIO, errno.EROFS, errno.ENOMEM}


def _behind(error: BaseException) -> OSError | None:
    """What the operating system had refused before this was raised."""
    found: BaseException | None = error
    for _ in range(20):
        found = found and (found.__cause__ or found.__context__)
        if isinstance(found, OSError) and found.errno in _LASTING:
            return found
    return None


def explained(error: BaseException) -> MergetoolError | None:
    """What an exception of the system or of a library means to the user; None where it is a bug of ours.

    Args:
        error: whatever has come up to the command line.
    """
    if isinstance(error, MergetoolError):
        return error
    found = next((explain(error) for kind, explain in _TABLE if isinstance(error, kind)), None)
    if found is None and (said := _OS_ERROR.search(str(error))):  # of libraries in Rust: safetensors, tokenizers
        found = _refused(OSError(int(said[1]), os.strerror(int(said[1]))))
    if found is None and (behind := _behind(error)) is not None:
        found = _refused(behind)
    if found is None and isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)):  # torch's
        found = _memory(error)
    return MergetoolError(*found) if found else None


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word closest to `word`, or lists the known ones."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(known)}"


def plain(text: str) -> str:
    """The text with what would steer a terminal (escape sequences, marks that turn the direction of writing) written out.

    Names of tensors, files and candidates come from whoever made them; lines and tabs stay.
    """
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def without_tokens(text: str) -> str:
    """The text with every access token made unreadable: what looks like one, and the values of *_TOKEN and *_API_KEY.

    Whatever is printed or written that is not our own words (messages of libraries, tracebacks) goes through here.
    """
    for name, value in os.environ.items():
        if name.endswith(_SECRET_NAMES) and len(value.strip()) >= 8:
            for form in _forms(value.strip()):
                text = text.replace(form, "***")
    return _TOKEN.sub("hf_***", _USER.sub(r"\1***@", text))


def _forms(secret: str) -> list[str]:
    """A secret as libraries print it: as it is, as Python or JSON writes it, as bytes, in a URL; the longest first."""
    raw = secret.encode(errors="surrogateescape")
    forms = {secret, repr(secret)[1:-1], ascii(secret)[1:-1], str(raw)[2:-1], json.dumps(secret)[1:-1]}
    forms |= {quote(raw), quote(raw, safe=""), raw.decode("latin-1")}
    return sorted(forms, key=len, reverse=True)
