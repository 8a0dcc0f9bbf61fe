"""OnlineMerge's settings in the groups of another optimizer: under names that are nobody else's.

RMSprop and ASGD have an `alpha` of their own, others a `seed` or a `clip`; so each setting of ours carries a prefix there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping
from typing import Any

from mergetool.errors import CheckpointError

PREFIX = "online_merge_"
ACCOUNT = frozenset(["merges", "merged_alpha"])
"""What a group counts, beside its settings."""


class OwnSettings(MutableMapping[str, Any]):
    """A group as merging reads it: its own settings without their prefix, and all else of the group but what they hide.

    Args:
        group: of the optimizer that is wrapped; written through.
        names: the settings that are merging's own.
    """

    def __init__(self, group: dict[str, Any], names: Collection[str]) -> None:
        self._group, self._names = group, ACCOUNT | set(names)

    def _key(self, name: str) -> str:
        return PREFIX + name if name in self._names else name

    def __getitem__(self, name: str) -> Any:
        return self._group[self._key(name)]

    def __setitem__(self, name: str, value: Any) -> None:
        self._group[self._key(name)] = value

    def __delitem__(self, name: str) -> None:
        del self._group[self._key(name)]

    def __iter__(self) -> Iterator[str]:
        for key in self._group:
            if key not in self._names:
                bare = key.removeprefix(PREFIX)
                yield bare if bare in self._names else key

    def __len__(self) -> int:
        return sum(1 for _ in self)


def prefixed(group: dict[str, Any], names: Collection[str], theirs: Collection[str]) -> dict[str, Any]:
    """A group from before the prefix, with it.

    Args:
        group: saved; one that has the prefix already, or no merges, is returned as it is.
        names: the settings that are merging's own.
        theirs: names of the wrapped optimizer's own settings.

    Raises:
        CheckpointError: a name was both.
    """
    names = ACCOUNT | set(names)
    if "merges" not in group or any(key.startswith(PREFIX) for key in group):
        return group
    if both := sorted(names & set(theirs) & set(group)):
        raise CheckpointError(
            f"the state was saved when `{both[0]}` ({group[both[0]]!r}) was the wrapped optimizer's and the merge's",
            "load it into the wrapped optimizer before OnlineMerge is put around it; the merges then begin anew",
        )
    return {PREFIX + key if key in names else key: value for key, value in group.items()}
