"""What is asked of the Hub: which commit a name stands for, patiently, and how a refusal reads in one line.

A name is asked about once in a run. From then on the run reads that commit, so that nothing moves between the check
of a recipe and the fetching of what it names.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mergetool.errors import HubError, MergetoolError

T = TypeVar("T")
TRIES, LONGEST_WAIT, TIMEOUT = 4, 60.0, 30.0  # of one question; seconds
_BUSY = (408, 429, 500, 502, 503, 504)
_NOBODY = ("ConnectError", "UnsupportedProtocol", "LocalProtocolError")  # asking again would change nothing


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its size in bytes and the hash that git (sha1) or LFS (sha256) knows it by."""

    size: int
    oid: str


@dataclass(frozen=True)
class Pinned:
    """A repository at one commit.

    Attributes:
        repo, kind: ``org/name``; ``model`` or ``dataset``.
        revision: the branch, tag or commit as it was written; ``main`` where nothing was.
        commit: what it stood for when it was first asked about.
        files: name -> RemoteFile; None where the Hub could not be reached and the cache is all there is.
        card: the metadata of its card: licence, base models.
        headers: of its weight files, as they are read.
    """

    repo: str
    kind: str
    revision: str
    commit: str
    files: dict[str, RemoteFile] | None = None
    card: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """As a recipe would write it."""
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"

    @property
    def directory(self) -> Path:
        """Where the standard cache has, or will have, the files of this commit."""
        return _folder(self.repo, self.kind) / "snapshots" / self.commit


_known: dict[tuple[str, str, str], Pinned] = {}
_held: dict[tuple[str, str, str], str] = {}
_lock = threading.Lock()


def pin(reference: str, kind: str = "model", error: type[MergetoolError] = HubError) -> Pinned:
    """The repository behind ``org/name[@revision]``, at one commit for the whole of this process.

    Where the Hub cannot be reached, or HF_HUB_OFFLINE is set, it is the commit that the cache has for the revision.

    Raises:
        MergetoolError (of the kind `error`): there is no such repository or revision, access is refused, or the Hub
            cannot be reached and the cache does not have it.
    """
    repo, _, revision = reference.partition("@")
    key = (kind, repo, revision or "main")
    with _lock:
        if key not in _known:
            with refusals(reference, error):
                _known[key] = _ask(*key)
        return _known[key]


def pins() -> dict[tuple[str, str, str], str]:
    """(kind, repository, revision) -> commit of everything asked about so far: to be held by another process."""
    return {**_held, **{key: one.commit for key, one in _known.items()}}


def hold(commits: dict[tuple[str, str, str], str]) -> None:
    """Take over the commits of the process that started this one."""
    _held.update(commits)


def forget() -> None:
    """As if nothing had been asked: the next run in the same process may find the Hub moved."""
    _known.clear()
    _held.clear()


def offline() -> bool:
    """True where HF_HUB_OFFLINE forbids any request."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _ask(kind: str, repo: str, revision: str) -> Pinned:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    wanted = _held.get((kind, repo, revision), revision)
    if offline():
        return _cached(kind, repo, revision, wanted) or _unreachable(repo, "HF_HUB_OFFLINE is set")
    try:
        info = patiently(lambda: HfApi().repo_info(repo, repo_type=kind, revision=wanted, files_metadata=True, timeout=TIMEOUT))
    except (HTTPError, ConnectionError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise
        found = _cached(kind, repo, revision, wanted)  # as the client itself does where the network is down
        if found is None:
            raise
        return found
    files = {
        one.rfilename: RemoteFile(one.size or 0, one.lfs.sha256 if one.lfs else one.blob_id or "")
        for one in info.siblings or []
    }
    _remember(kind, repo, revision, info.sha)
    card = info.card_data.to_dict() if info.card_data else {}
    return Pinned(repo, kind, revision, info.sha, files, card)


def _folder(repo: str, kind: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=repo, repo_type=kind)


def _cached(kind: str, repo: str, revision: str, wanted: str) -> Pinned | None:
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(repo)
    ref = _folder(repo, kind) / "refs" / wanted
    commit = ref.read_text().strip() if ref.is_file() else wanted
    found = Pinned(repo, kind, revision, commit)
    return found if re.fullmatch(r"[0-9a-f]{40}", commit) and found.directory.is_dir() else None


def _remember(kind: str, repo: str, revision: str, commit: str) -> None:
    """Note in the cache what a branch stands for; its files are then fetched by commit, which would not note it."""
    ref = _folder(repo, kind) / "refs" / revision
    if revision == commit or ".." in Path(revision).parts:
        return
    try:
        if not ref.is_file() or ref.read_text() != commit:
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit)
    except OSError:
        pass  # a cache that cannot be written to will be told of when a file is fetched


def _unreachable(repo: str, why: str) -> Any:
    raise MergetoolError(f"not in the cache, and {why}", f"check the path, or fetch {repo} once with the network on")


# --- patience, and what a refusal means ----------------------------------------------------------------------------


def patiently(call: Callable[[], T]) -> T:
    """Asks again where the Hub is busy or the connection drops; waits as long as Retry-After says, up to a minute."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except (HTTPError, ConnectionError) as error:
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
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError

    try:
        yield
    except MergetoolError as error:
        raise error if type(error) is not MergetoolError else kind(f"{what}: {error.message}", error.hint) from None
    except (HTTPError, EntryNotFoundError, HFValidationError, OSError, RuntimeError, UnicodeError) as error:
        cause: BaseException = error
        while not isinstance(cause, HTTPError) and cause.__cause__ is not None:
            cause = cause.__cause__  # uploads wrap what happened in a RuntimeError
        message, hint = _meaning(cause)
        raise kind(f"{what}: {message}", hint) from None


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
    if isinstance(error, (hub.HTTPError, ConnectionError, hub.LocalEntryNotFoundError)):
        return (
            f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {said})",
            "check the path or the network, and run the same command again; files that have arrived are kept",
        )
    return f"the Hub's client gives up ({said})", "run the same command again; files that have arrived are kept"


def _first_line(text: str) -> str:
    """The client's messages run over many lines and carry request ids."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[0][:200] if lines else "no reason given"
