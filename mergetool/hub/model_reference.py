"""``MODEL`` or ``MODEL+ADAPTER`` as recipes write it; each a path or a Hub id. Nothing is opened or asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mergetool.config.sources import looks_like_hub_id
from mergetool.errors import CheckpointError


@dataclass(frozen=True)
class ModelReference:
    """``MODEL`` or ``MODEL+ADAPTER`` taken apart; each a path or a Hub id."""

    model: str
    adapter: str | None = None

    @classmethod
    def read(cls, text: str | Path) -> ModelReference:
        """Raises CheckpointError where there is more than one adapter."""
        if Path(text).is_dir():
            return cls(str(text))
        model, *adapters = str(text).split("+")
        if len(adapters) > 1:
            raise CheckpointError(f"{text}: has more than one adapter", "merge one adapter at a time")
        return cls(model, *adapters)

    @property
    def repositories(self) -> list[str]:
        """The Hub ids in it, without revisions: what a model card may call a base model."""
        return [part.partition("@")[0] for part in (self.model, self.adapter) if part and not is_local(part)]


def is_local(reference: str | Path) -> bool:
    """True where a reference is a path, whether it exists or not, and not a Hub id."""
    return isinstance(reference, Path) or Path(reference).is_dir() or not looks_like_hub_id(str(reference))
