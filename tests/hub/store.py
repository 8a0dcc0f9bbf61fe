"""What a stand-in for the Hub remembers: repositories, commits, large files, pull requests, and who may see them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from pathlib import Path

LARGE = (".safetensors", ".bin", ".parquet", ".png")
OWNER, OTHER = "hf_" + "MadeUpOwner" * 3 + "A", "hf_" + "MadeUpGuest" * 3 + "B"


@dataclass(frozen=True)
class Blob:
    """A file's content; `large` ones go by their sha256, others by git's sha1."""

    data: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return sha256(self.data).hexdigest()

    @property
    def git(self) -> str:
        return sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def oid(self) -> str:
        return self.sha256 if self.large else self.git

    def as_tree(self, path: str) -> dict:
        entry: dict = {"type": "file", "path": path, "oid": self.git, "size": len(self.data)}
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 134}
        return entry


@dataclass
class Request:
    """A pull request or discussion."""

    num: int
    title: str
    author: str
    status: str = "draft"


@dataclass
class Repository:
    """One repository: trees by commit, and what its branches point at."""

    kind: str
    name: str
    owner: str
    private: bool = False
    gated: bool = False
    card: dict = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    trees: dict[str, dict[str, Blob]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)

    def commit(self, tree: dict[str, Blob], branch: str = "main", message: str = "") -> str:
        """A new commit with exactly this tree."""
        parts = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(tree.items()))
        oid = sha1(f"{self.refs.get(branch)}{message}{len(self.log)}{parts}".encode()).hexdigest()
        self.trees[oid], self.refs[branch] = dict(tree), oid
        self.log.append((branch, message))
        return oid

    def resolve(self, revision: str) -> str | None:
        """A branch, ref or commit -> the commit."""
        name = revision.removeprefix("refs/heads/")
        return self.refs.get(name) or (revision if revision in self.trees else None)

    def tree(self, revision: str = "main") -> dict[str, Blob]:
        return self.trees[self.resolve(revision) or ""]


class Store:
    """All repositories, and the tokens of the people."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.people = {OWNER: {"name": "me", "orgs": [{"name": "lab"}]}, OTHER: {"name": "guest", "orgs": []}}
        self.lock = threading.RLock()

    def create(self, name: str, kind: str = "models", private: bool = False) -> Repository:
        found = Repository(kind, name, name.partition("/")[0], private)
        found.commit({".gitattributes": Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", False)})
        self.repositories[kind, name] = found
        return found

    def add(self, name: str, directory: Path, kind: str = "models", **about: object) -> Repository:
        """A repository with the files of a directory, as its owner would have pushed it."""
        found = self.repositories.get((kind, name)) or self.create(name, kind)
        for key, value in about.items():
            setattr(found, key, value)
        tree = dict(found.tree())
        for path in sorted(p for p in directory.rglob("*") if p.is_file()):
            tree[path.relative_to(directory).as_posix()] = self.blob(path.name, path.read_bytes())
        found.commit(tree, message="files")
        return found

    def blob(self, name: str, data: bytes) -> Blob:
        large = name.endswith(LARGE)
        if large:
            self.large[sha256(data).hexdigest()] = data
        return Blob(data, large)

    def may(self, person: dict | None, repository: Repository) -> bool:
        """True where a person belongs to the repository's owner."""
        return person is not None and repository.owner in [person["name"], *(org["name"] for org in person["orgs"])]
