"""Where a candidate's weights come from once it has been made: a checkpoint, or a merge tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Live(Protocol):
    """A model in memory that takes the weights of one candidate after the other."""

    def put_checkpoint(self, source: Path | str) -> None: ...

    def put_merge(self, recipe: dict[str, Any], where: str) -> None: ...


@dataclass(frozen=True)
class CheckpointWeights:
    """Weights that lie on disk, or on the Hub."""

    path: Path | str

    def put(self, live: Live, where: str) -> None:
        live.put_checkpoint(self.path)


@dataclass(frozen=True)
class MergedWeights:
    """Weights that a merge makes, tensor by tensor, when they are asked for.

    Attributes:
        recipe: of the merge, with real paths.
        learned: whether it was learned; then the line of results keeps it.
    """

    recipe: dict[str, Any]
    learned: bool = False

    def put(self, live: Live, where: str) -> None:
        live.put_merge(self.recipe, where)
