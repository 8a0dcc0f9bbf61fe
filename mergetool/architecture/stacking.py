"""The configuration of a model that is made of layers of others."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from mergetool.architecture.skeleton import settings_of
from mergetool.errors import CheckpointError

_DEPTH = "num_hidden_layers"  # transformers' own name of it; a class may write another, which its attribute_map says


def stacked(config: Mapping[str, Any], layers: Sequence[tuple[Mapping[str, Any], int]]) -> dict[str, Any]:
    """A configuration with other layers.

    Args:
        config: as config.json holds it.
        layers: for each layer of the result the configuration that it comes from, and its number there.

    Returns:
        A copy of `config` with the new depth. Lists that have an entry for each layer (the kind of its attention, say) have
        those of the layers that were taken; they are written down where the class would have made others for the new depth.

    Raises:
        CheckpointError: no key says the depth.
    """
    found = copy.deepcopy(dict(config))
    holder, key = _holder(found)
    here = _part(found, holder)
    here[key] = len(layers)
    sources = [(_complete(one), i) for one, i in layers]
    for name in _lists(config):
        taken = [part[name][i] if isinstance(part.get(name), list) and i < len(part[name]) else None for part, i in sources]
        if None not in taken and (name in here or _complete(found).get(name) != taken):
            here[name] = taken
    return found


def _holder(config: Mapping[str, Any]) -> tuple[str | None, str]:
    """The part of a configuration that counts the layers, None for the whole, and the key that does."""
    settings = settings_of(config)
    if settings is not None:
        text = settings.get_text_config()
        part = next((name for name, value in vars(settings).items() if value is text), None)
        key = text.attribute_map.get(_DEPTH, _DEPTH)
        if (part is None or isinstance(config.get(part), dict)) and isinstance(getattr(text, key, None), int):
            return part, key
    if not isinstance(config.get(_DEPTH), int):
        raise CheckpointError(
            f"config.json of model_type {config.get('model_type')!r}: which key says the number of layers is not known",
            f"a model whose layers are stacked needs {_DEPTH}",
        )
    return None, _DEPTH


def _part(config: dict[str, Any], holder: str | None) -> dict[str, Any]:
    return config if holder is None else config[holder]


def _complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part that counts the layers, with the defaults of its class."""
    holder, _ = _holder(config)
    settings = settings_of(config)
    return _part(dict(config) if settings is None else settings.to_dict(), holder)


def _lists(config: Mapping[str, Any]) -> list[str]:
    """The keys that have an entry for each layer: their class makes one more for a model of one layer more, or a list as
    long as the depth is called after the layers.
    """
    holder, key = _holder(config)
    whole = _complete(config)
    depth = whole[key]
    deeper = copy.deepcopy(dict(config))
    part = _part(deeper, holder)
    part[key] = depth + 1
    as_long = [name for name, value in whole.items() if isinstance(value, list) and len(value) == depth]
    for name in as_long:
        part.pop(name, None)
    made = _complete(deeper)
    return [n for n in as_long if (isinstance(made.get(n), list) and len(made[n]) == depth + 1) or "layer" in n]
