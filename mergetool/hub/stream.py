"""Low disk: a shard of a repository is fetched when the merge comes to it, and removed when the merge has passed.

Shards go to a directory of the merge's own and not to the standard cache. One that the cache has is read there.
"""

from __future__ import annotations

import shutil
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from mergetool import hub
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.reader import Reader
from mergetool.hub.fetch import fetch_file, missing_weights

T = TypeVar("T", bound=Hashable)


class Stream:
    """The shards that are on this disk just now.

    Args:
        layouts: the inputs of the merge.
        directory: where shards go; made when the first one comes.
    """

    def __init__(self, layouts: Sequence[Layout], directory: Path) -> None:
        self._directory = directory
        self._remote: dict[Path, tuple[hub.Pinned, str, int]] = {
            pinned.directory / file: (pinned, file, size) for pinned, file, size in missing_weights(layouts)
        }
        self.places: dict[Path, Path] = {}
        """A file as layouts call it -> where it lies now."""
        adapters = {one.place.directory for layout in layouts if (one := layout.adapter) is not None}
        self._kept = {file for file in self._remote if file.parent in adapters}  # small, and needed to the end

    def needed(self, files: Sequence[Path]) -> frozenset[Path]:
        """Those of `files` that have to be fetched to be read."""
        return frozenset(file for file in files if file in self._remote and file not in self._kept)

    def in_order(self, groups: dict[frozenset[Path], list[T]]) -> Iterator[tuple[frozenset[Path], list[T]]]:
        """The groups in an order in which each next one has the fewest bytes to fetch; of equals the first."""
        left, held = dict(groups), frozenset[Path]()
        while left:
            held = min(left, key=lambda files: sum(self._remote[file][2] for file in files - held))
            yield held, left.pop(held)

    def hold(self, files: frozenset[Path], readers: Sequence[Reader]) -> None:
        """Have these shards and no others; nothing may be reading meanwhile.

        Raises:
            HubError: the Hub does not answer or refuses. What is merged is kept: the same merge goes on from there.
        """
        wanted = files | self._kept
        for file in [file for file in self.places if file not in wanted]:
            for reader in readers:
                reader.release(file)
            self.places.pop(file).unlink(missing_ok=True)
        for file in sorted(wanted - self.places.keys()):
            pinned, name, _ = self._remote[file]
            own = self._directory / f"{pinned.repo.replace('/', '--')}@{pinned.commit[:12]}"
            self.places[file] = fetch_file(pinned, name, directory=own)

    def close(self) -> None:
        """Remove what is left."""
        self.places.clear()
        shutil.rmtree(self._directory, ignore_errors=True)
