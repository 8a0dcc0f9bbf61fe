"""A finished checkpoint to the Hub: complete or not at all, private unless asked, and only what is not there yet."""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from hashlib import file_digest, sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool import hub, reading
from mergetool.checkpoint.adapter import ADAPTER_CONFIG
from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.manifest import MANIFEST, Manifest
from mergetool.checkpoint.model_files import beside, is_inside
from mergetool.checkpoint.output import OF_THE_RUN, files_beside
from mergetool.checkpoint.place import Directory
from mergetool.checkpoint.working_directory import MARKS, partial_directory
from mergetool.errors import CheckpointError, HubError, OutputError
from mergetool.files import write_whole
from mergetool.hub.card import CARD, Evaluation, completed
from mergetool.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")
_MERGEKIT = "mergekit_config.yml"
_ATTEMPTS = 3


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        repo, url: where it lies.
        revision: the branch or the pull request's ref.
        commit: of that revision now.
        uploaded: files that were not there yet; empty where there was nothing to do.
        nbytes: of these files.
        private: whether the repository is.
        pull_request: its page, where one was opened or gone on with.
        left: files of the directory that are no part of the result, and were not pushed.
    """

    repo: str
    url: str
    revision: str
    commit: str
    uploaded: list[str]
    nbytes: int
    private: bool
    pull_request: str | None = None
    left: list[str] = field(default_factory=list)

    def as_facts(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def check_complete(directory: Path) -> Manifest:
    """The manifest of a finished result.

    Raises:
        CheckpointError: it is not there, unfinished, damaged, or no longer what its manifest says.
    """
    again = "run the same command again until it is complete"
    if not directory.is_dir():
        if partial_directory(directory).exists():
            raise CheckpointError(f"{directory}: is not complete, its run was interrupted", again)
        raise CheckpointError(f"{directory}: no such directory", "name the directory that merge or align has made")
    if directory.name.endswith(".mergetool-partial") or any((directory / mark).exists() for mark in MARKS):
        raise CheckpointError(f"{directory}: is the work of an unfinished run", again)
    manifest = Manifest.read(directory)
    layout = read_layout(directory)
    for name, digest in manifest.outputs_sha256.items():
        if name not in layout.headers:
            raise CheckpointError(f"{directory}: lacks {name}, which its {MANIFEST} lists", "make the result again")
        if _sha256(directory / name) != digest:
            raise CheckpointError(f"{directory / name}: is not what {MANIFEST} says was written", "make the result again")
    return manifest


def check_access(repo: str, public: bool = False, pull_request: bool = False) -> str:
    """See before any work whether a push could succeed; returns the name of the token's owner.

    Raises:
        HubError: no token or a wrong one, no right to the namespace, or a public repository without `public`.
    """
    from huggingface_hub import HfApi

    with hub.refusals(repo):
        return _access(HfApi(), repo, public, pull_request)[0]


def _access(api: HfApi, repo: str, public: bool, pull_request: bool) -> tuple[str, Any]:
    """(the token's owner, what the Hub knows of the repository or None)."""
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    if hub.offline():
        raise HubError(f"{repo}: HF_HUB_OFFLINE is set, so nothing can be pushed", "unset it")
    validate_repo_id(repo)
    me = hub.patiently(api.whoami)
    if not isinstance(me, dict) or not isinstance(me.get("name"), str):
        raise HubError(f"{repo}: {api.endpoint} does not say whose the token is", "check HF_ENDPOINT, and what stands between")
    if "/" not in repo:
        raise HubError(f"{repo}: has no owner", f"write {me['name']}/{repo}")
    try:
        info = hub.patiently(lambda: api.model_info(repo, timeout=hub.TIMEOUT))
    except RepositoryNotFoundError:
        info = None
    owner = repo.partition("/")[0]
    if info is None and pull_request:
        raise HubError(f"{repo}: does not exist, so it can have no pull request", "check the name, or leave out --pr")
    if info is None and owner not in (names := [me["name"], *(one["name"] for one in me.get("orgs") or [])]):
        raise HubError(f"{repo}: the token is {me['name']}'s, who is not in '{owner}'", f"push to {' or '.join(names)}")
    if info is not None and not info.private and not public:
        raise HubError(f"{repo}: is public, and everyone would see what is pushed", "pass --public if that is meant")
    return me["name"], info


def push(
    directory: str | Path,
    repo: str,
    *,
    public: bool = False,
    revision: str | None = None,
    pull_request: bool = False,
    measured: Callable[[Manifest], Sequence[Evaluation]] = lambda manifest: (),
) -> Pushed:
    """Upload a finished checkpoint; what the repository has already is not uploaded again.

    A push that is cut short goes on where it stopped when it is run again: files that have arrived are not sent again,
    and an open pull request of the same result is gone on with.

    Args:
        directory: what `merge` or `align` has made.
        repo: ``owner/name``; made if it does not exist.
        public: without it a new repository is private, and nothing is pushed into a public one.
        revision: a branch, made if need be; ``refs/pr/N`` goes into a pull request.
        pull_request: open a pull request instead of committing to the main branch.
        measured: given the manifest, what was measured of the result, for the card.

    Raises:
        CheckpointError: the directory is not complete.
        HubError: the Hub does not answer or refuses.
        OutputError: the card cannot be written into the directory.
    """
    from huggingface_hub import HfApi

    directory = Path(directory)
    if revision is not None and not re.fullmatch(r"[\w][\w./-]*", revision):
        raise HubError(f"{repo}: --revision {revision!r} is no name for a branch", "use letters, digits, and . _ - /")
    if pull_request and revision:
        raise HubError(f"{repo}: --pr and --revision {revision} are both given", "keep one: a pull request has its own ref")
    with hub.refusals(repo):  # report a wrong token before 15 GB are hashed
        api = HfApi()
        me, info = _access(api, repo, public, pull_request)
    manifest = check_complete(directory)
    _write_card(directory, manifest, measured(manifest), repo.partition("/")[2])
    with hub.refusals(repo):
        if info is None:
            hub.patiently(lambda: api.create_repo(repo, private=not public, exist_ok=True))
        private = info.private if info is not None else not public
        return _upload(api, directory, manifest, repo, me, revision, pull_request, bool(private))


def _upload(
    api: HfApi,
    directory: Path,
    manifest: Manifest,
    repo: str,
    me: str,
    revision: str | None,
    pull_request: bool,
    private: bool,
) -> Pushed:
    # the same result has the same title, by which its pull request is found again
    title = f"Upload {directory.name} with mergetool ({_sha256(directory / MANIFEST)[:8]})"
    request = _open_request(api, repo, me, title) if pull_request else None
    target = _reference(request) if request else revision or "main"
    if revision and not revision.startswith("refs/") and revision != "main":
        hub.patiently(lambda: api.create_branch(repo, branch=revision, exist_ok=True))
    local, left = _local_files(directory, manifest)
    tree = _remote_files(api, repo, target)
    changed, stale = _difference(directory, local, tree)
    todo = list(changed)
    if todo and pull_request and request is None:
        request = hub.patiently(lambda: api.create_pull_request(repo, title=title, description=f"mergetool {__version__}"))
        target = _reference(request)
    for attempt in range(1, _ATTEMPTS + 1):
        if not changed and not stale:
            break
        try:
            with _bars_on_terminals_alone():
                api.upload_folder(
                    repo_id=repo, folder_path=directory, revision=target, commit_message=title,
                    allow_patterns=[glob.escape(name) for name in changed],
                    delete_patterns=[glob.escape(name) for name in stale] or None,
                )  # fmt: skip
            break
        except ValueError as error:  # the Hub's verdict on the card's YAML
            raise CheckpointError(f"{directory / CARD}: {error}", "correct the YAML block at its top") from None
        except (hub.http_error(), OSError, RuntimeError):
            if attempt == _ATTEMPTS or not _reachable(api):
                raise
            # the answer may have been lost after the commit had landed: look before trying again
            changed, stale = _difference(directory, local, _remote_files(api, repo, target))
    if request is not None and request.status == "draft":
        hub.patiently(lambda: api.change_discussion_status(repo, request.num, new_status="open"))
    commit = hub.patiently(lambda: api.model_info(repo, revision=target, timeout=hub.TIMEOUT)).sha or ""
    url = f"{api.endpoint}/{repo}" + ("" if target == "main" else f"/tree/{target}")
    nbytes = sum(local[name] for name in todo)
    return Pushed(repo, url, target, commit, todo, nbytes, private, request.url if request else None, left)


def _reference(request: Any) -> str:
    """The ref that a pull request's commits go to."""
    assert request.git_reference is not None  # a discussion that is no pull request has none
    return request.git_reference


@contextmanager
def _bars_on_terminals_alone() -> Iterator[None]:
    """The client draws bars of its own, into files too."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _reachable(api: HfApi) -> bool:
    """False where trying again at once is of no use: the token is refused, or nobody answers."""
    try:
        hub.patiently(api.whoami)
    except (hub.http_error(), OSError):
        return False
    return True


def _open_request(api: HfApi, repo: str, me: str, title: str) -> Any:
    """My open pull request of this very result, left by an earlier push."""
    mine = hub.patiently(lambda: list(api.get_repo_discussions(repo, author=me, discussion_type="pull_request")))
    num = next((one.num for one in mine if one.title == title and one.status in ("open", "draft")), None)
    return hub.patiently(lambda: api.get_discussion_details(repo, num)) if num is not None else None


def _local_files(directory: Path, manifest: Manifest) -> tuple[dict[str, int], list[str]]:
    """(name -> bytes of what is pushed, what of the directory is left): what the manifest lists, and the account itself.

    Nothing that somebody has put beside the result goes along, and no link out of the directory is followed.
    """
    place = Directory(directory)
    names = {MANIFEST, CARD, ADAPTER_CONFIG, _MERGEKIT, *OF_THE_RUN, *manifest.outputs_sha256}
    names |= {*(files_beside(directory) if manifest.files is None else manifest.files)}  # an older account lists none
    names = {name for name in names if not (directory / name).is_symlink() or is_inside(directory / name, directory)}
    sizes = {name: (directory / name).stat().st_size for name in sorted(names) if (directory / name).is_file()}
    here = {path.name for path in directory.iterdir() if not path.name.startswith(".") and not path.is_dir()}
    carried = {name for name in beside(place).carried if "/" in name}
    return sizes, sorted((here | carried) - sizes.keys())


def _remote_files(api: HfApi, repo: str, revision: str) -> dict[str, tuple[int, str]]:
    """Name -> (bytes, sha256 of a large file or git's sha1 of a small one)."""
    from huggingface_hub.hf_api import RepoFile

    tree = hub.patiently(lambda: list(api.list_repo_tree(repo, revision=revision)))
    return {one.path: (one.size, one.lfs.sha256 if one.lfs else one.blob_id) for one in tree if isinstance(one, RepoFile)}


def _difference(directory: Path, local: dict[str, int], remote: dict[str, tuple[int, str]]) -> tuple[list[str], list[str]]:
    """(files that the repository lacks or has otherwise, its weight files of an earlier result)."""
    changed = [
        name
        for name, size in local.items()
        if name not in remote or remote[name][0] != size or not _same(directory / name, remote[name][1])
    ]
    stale = [name for name in remote if name not in local and any(fnmatch(name, pattern) for pattern in _WEIGHTS)]
    return changed, stale


def _same(path: Path, oid: str) -> bool:
    if len(oid) == 64:
        return _sha256(path) == oid
    content = reading.content(path, 100_000_000) if path.stat().st_size < 100_000_000 else b""  # git itself holds none larger
    return sha1(b"blob %d\0" % len(content) + content).hexdigest() == oid


def _sha256(path: Path) -> str:
    try:
        with reading.opened(path) as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})", "check the disk") from None


def _write_card(directory: Path, manifest: Manifest, evaluations: Sequence[Evaluation], name: str) -> None:
    """Bring the card in the directory up to date, so that it is part of the same commit."""
    path = directory / CARD
    try:
        before = reading.text(path) if path.exists() else ""
        after = completed(before, manifest, evaluations, name)
        if after != before:
            write_whole(path, after)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})", "check its permissions") from None
