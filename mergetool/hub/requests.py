"""How the Hub is asked: patiently, and with every refusal turned into one line."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mergetool.errors import HubError, MergetoolError

T = TypeVar("T")
TRIES, LONGEST_WAIT, TIMEOUT = 4, 60.0, 30.0  # of one question; seconds
_BUSY = (408, 429, 500, 502, 503, 504)
_CLIENT = ("huggingface_hub", "httpx", "requests")
_NOBODY = ("ConnectError", "UnsupportedProtocol", "LocalProtocolError")  # asking again would change nothing


def offline() -> bool:
    """True where HF_HUB_OFFLINE forbids any request."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def http_error() -> type[Exception]:
    """What the HTTP library under the Hub's client raises, whichever library that is in this version of the client.

    The client names it in `huggingface_hub.errors`, though not as its own; tested with huggingface_hub 2.4.
    """
    from huggingface_hub import errors

    return vars(errors)["HTTPError"]


def patiently(call: Callable[[], T]) -> T:
    """Asks again where the Hub is busy or the connection drops; waits as long as Retry-After says, up to a minute."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except (http_error(), ConnectionError) as error:
            answered = isinstance(error, HfHubHTTPError)
            busy = error.response.status_code in _BUSY if answered else type(error).__name__ not in _NOBODY
            pause = _retry_after(error)
            pause = 0.5 * 2**attempt if pause is None else pause
            if not busy or offline() or attempt == TRIES or pause > LONGEST_WAIT:
                raise
        time.sleep(pause)
    raise AssertionError  # the last attempt returns or raises


def _retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks to wait."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    text = headers.get("retry-after") or (re.findall(r";\s*t=(\d+)", headers.get("ratelimit", "")) or [""])[0]
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None


@contextmanager
def refusals(what: str, kind: type[MergetoolError] = HubError) -> Iterator[None]:
    """Turns whatever the Hub's client raises into one line about `what`."""
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        yield
    except MergetoolError as error:
        raise error if type(error) is not MergetoolError else kind(f"{what}: {error.message}", error.hint) from None
    except (http_error(), EntryNotFoundError, HFValidationError, OSError, RuntimeError, UnicodeError) as error:
        cause: BaseException = error
        while not isinstance(cause, http_error()) and cause.__cause__ is not None:
            cause = cause.__cause__  # uploads wrap what happened in a RuntimeError
        message, hint = _meaning(cause)
        raise kind(f"{what}: {message}", hint) from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if not isinstance(error, json.JSONDecodeError) and not _is_the_clients(error):
            raise
        from huggingface_hub import constants

        said = f"{constants.ENDPOINT} answers, but not as the Hub does ({type(error).__name__})"
        raise kind(f"{what}: {said}", "check HF_ENDPOINT, and what stands between: a proxy or a log-in page") from None


def _is_the_clients(error: BaseException) -> bool:
    """Whether an error was raised by the client as it read an answer."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _CLIENT


def _meaning(error: BaseException) -> tuple[str, str]:
    """What went wrong, and the next thing to do."""
    from huggingface_hub import constants, get_token
    from huggingface_hub import errors as hub

    log_in = "set HF_TOKEN or run `hf auth login`"
    status = error.response.status_code if isinstance(error, hub.HfHubHTTPError) else 0
    said = _first_line(getattr(error, "server_message", None) or str(error))
    if isinstance(error, hub.LocalTokenNotFoundError):
        return "there is no token to write with", log_in
    if isinstance(error, hub.GatedRepoError):
        return "is gated, and its owner has not let you in", f"ask for access on its page, then {log_in}"
    if status == 401 and get_token():
        return "the Hub does not accept the token", "HF_TOKEN is wrong or has expired: make a new one, or `hf auth login`"
    if isinstance(error, hub.RepositoryNotFoundError):
        return f"no such repository at {constants.ENDPOINT}, or a private one", f"check the name; for a private one {log_in}"
    if isinstance(error, hub.RevisionNotFoundError):
        return "the repository has no such revision", "check what follows the @: a branch, a tag or a commit"
    if isinstance(error, hub.RemoteEntryNotFoundError):
        return f"a file is missing in the repository ({said})", "tell its owner, or use another revision"
    if status == 403:
        return f"access is refused ({said})", "use a token with the permission that this needs"
    if status == 429:
        pause = _retry_after(error)
        when = f"in {pause:.0f} seconds" if pause else "later"
        return "the Hub asks to wait (too many requests)", f"run the same command again {when}"
    if isinstance(error, hub.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set", "unset it to reach the Hub"
    if isinstance(error, hub.HFValidationError):
        return f"is not a Hub id ({said})", "write org/name or org/name@revision"
    if isinstance(error, UnicodeError) or "header value" in str(error):
        return "the token holds a character that no token has", "set HF_TOKEN again"
    if isinstance(error, OSError) and error.errno == 28:  # ENOSPC
        return "the disk of the cache is full", "make room, or set HF_HOME to a larger disk, and run again"
    if status:
        return f"the Hub answers {status} ({said})", "try again later"
    if isinstance(error, (http_error(), ConnectionError, hub.LocalEntryNotFoundError)):
        return (
            f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {said})",
            "check the path or the network, and run the same command again; files that have arrived are kept",
        )
    return f"the Hub's client gives up ({said})", "run the same command again; files that have arrived are kept"


def _first_line(text: str) -> str:
    """The client's messages run over many lines and carry request ids."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[0][:200] if lines else "no reason given"
