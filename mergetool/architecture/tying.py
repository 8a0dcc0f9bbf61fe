"""Which weights a configuration ties, and how to say in it that they are not."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from mergetool.architecture.skeleton import skeleton_of

_KEY = "tie_word_embeddings"  # transformers' one name of it, in whatever part of a configuration


def stated(config: Mapping[str, Any]) -> bool | None:
    """What a configuration says of tying in words: True where some part of it ties; None where it says nothing.

    Silence means what the class means by it, which `skeleton_of` knows.
    """
    said = [bool(part[_KEY]) for part in _parts(config) if part.get(_KEY) is not None]
    return any(said) if said else None


def untied(config: Mapping[str, Any], weight: str) -> dict[str, Any]:
    """The configuration under which `weight` is a weight of its own.

    Args:
        config: as config.json holds it; transformers ties `weight` under it.
        weight: its name in memory.

    Returns:
        A copy with as few keys changed as can be: that which this architecture reads, and what would change its meaning
        along with it. The same as it was where the class ties whatever a configuration says: its loader keeps two
        tensors that differ.
    """
    places = [(), *_paths(config)]
    for changed in (*([place] for place in places), places):
        found: dict[str, Any] = copy.deepcopy(dict(config))
        for place in changed:
            _at(found, place)[_KEY] = False
        made = skeleton_of(found)
        if made is not None and weight not in made.tied:
            return found
    return copy.deepcopy(dict(config))


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield config
    yield from (_at(config, path) for path in _paths(config))


def _paths(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The parts of a configuration that are configurations themselves."""
    found = []
    for key, value in config.items():
        if isinstance(value, dict) and (key.endswith("_config") or "model_type" in value):
            found += [(*path, key), *_paths(value, (*path, key))]
    return found


def _at(config: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        config = config[key]
    return config
