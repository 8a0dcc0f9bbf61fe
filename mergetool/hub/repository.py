"""A repository of the Hub as a place that checkpoints are read from: small files and headers, at one commit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mergetool import hub
from mergetool.checkpoint.header import Header, parse_header
from mergetool.checkpoint.place import Directory, header_of
from mergetool.errors import CheckpointError
from mergetool.hub.fetch import fetch_file

_SMALL = 200_000_000  # no configuration or tokenizer is larger


class Repository:
    """A `Place` on the Hub, at the commit that this run has pinned."""

    def __init__(self, pinned: hub.Pinned, allow_pickle: bool = False) -> None:
        self.pinned = pinned
        self.name = pinned.name
        self.directory = pinned.directory
        self._allow_pickle = allow_pickle

    def files(self) -> list[str]:
        """The names of all files; of those in the cache where the Hub could not be reached."""
        if self.pinned.files is not None:
            return sorted(self.pinned.files)
        return Directory(self.directory).files()

    def path(self, file: str) -> Path:
        """Where a small file lies in the cache; it is fetched if need be. It does not exist if the repository lacks it."""
        found = self.directory / file
        known = (self.pinned.files or {}).get(file)
        if known is None or found.exists():
            return found
        if known.size > _SMALL:
            raise CheckpointError(f"{self.called(file)}: has {known.size:,} bytes", "do not use this checkpoint")
        return fetch_file(self.pinned, file)

    def headers(self, files: list[str]) -> dict[str, Header]:
        """The headers of weight files: from the cache where they are in it, else by range requests."""
        missing = [file for file in files if file not in self.files()]
        if missing:
            where = "the cache" if self.pinned.files is None else "the repository"
            raise CheckpointError(
                f"{self.name}: {where} lacks the weight file {missing[0]}",
                "fetch it with the network on" if self.pinned.files is None else "use another revision, or tell its owner",
            )
        if files[0].endswith(".bin") and not self._allow_pickle:
            raise CheckpointError(
                f"{self.name}: holds pickled weights alone ({files[0]}), which could run code",
                "use a revision with safetensors, or pass --allow-pickle to read them without running any",
            )
        with ThreadPoolExecutor(max_workers=8) as pool:
            return dict(zip(files, pool.map(self._header, files), strict=True))

    def _header(self, file: str) -> Header:
        path = self.directory / file
        if path.exists() or file.endswith(".bin"):
            return header_of(path if path.exists() else fetch_file(self.pinned, file), self.called(file))
        if file not in self.pinned.headers:
            self.pinned.headers[file] = self._ranged(file)
        return self.pinned.headers[file]

    def _ranged(self, file: str) -> Header:
        """Its eight bytes of length, then what they announce: two requests, and not a byte of weights."""
        assert self.pinned.files is not None  # else the file is in the cache
        size = self.pinned.files[file].size
        return parse_header(
            self.directory / file, size, lambda start, stop: read_range(self.pinned, file, start, stop), self.called(file)
        )

    def called(self, file: str) -> str:
        """``org/name/file``."""
        return f"{self.name}/{file}"


def read_range(pinned: hub.Pinned, file: str, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file of a repository; no more is read, even where the server knows no ranges.

    Raises:
        CheckpointError: the Hub does not answer or refuses.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    if stop <= start:
        return b""
    url = hf_hub_url(pinned.repo, file, repo_type=pinned.kind, revision=pinned.commit)
    headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}

    def ask() -> bytes:
        with get_session().stream("GET", url, headers=headers, timeout=hub.TIMEOUT) as response:
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            skip = 0 if response.status_code == 206 else start
            found = bytearray()
            for chunk in response.iter_bytes(1 << 16):
                found += chunk
                if len(found) >= skip + stop - start:
                    break
            return bytes(found[skip : skip + stop - start])

    with hub.refusals(f"{pinned.name}/{file}"):
        return hub.patiently(ask)
