"""Which commit of the Hub a name stands for.

A name is asked about once in a run. From then on the run reads that commit, so that nothing moves between the check
of a recipe and the fetching of what it names.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergetool.errors import HubError, MergetoolError
from mergetool.hub.requests import TIMEOUT, http_error, offline, patiently, refusals


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


def _ask(kind: str, repo: str, revision: str) -> Pinned:
    from huggingface_hub import DatasetInfo, HfApi, ModelInfo
    from huggingface_hub.errors import HfHubHTTPError

    wanted = _held.get((kind, repo, revision), revision)
    if offline():
        return _cached(kind, repo, revision, wanted) or _unreachable(repo, "HF_HUB_OFFLINE is set")
    try:
        info = patiently(lambda: HfApi().repo_info(repo, repo_type=kind, revision=wanted, files_metadata=True, timeout=TIMEOUT))
    except (http_error(), ConnectionError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise
        found = _cached(kind, repo, revision, wanted)  # as the client itself does where the network is down
        if found is None:
            raise
        return found
    assert isinstance(info, ModelInfo | DatasetInfo)  # no other kind is asked for
    if info.sha is None:
        raise HubError(f"{repo}: the Hub names no commit", "try again later")
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
            ref.write_text(commit, encoding="utf-8")
    except OSError:
        pass  # a cache that cannot be written to will be told of when a file is fetched


def _unreachable(repo: str, why: str) -> Any:
    raise MergetoolError(f"not in the cache, and {why}", f"check the path, or fetch {repo} once with the network on")
