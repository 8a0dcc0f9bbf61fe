"""A model without weights: transformers' own class for a configuration, made on the meta device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


_SILENT = 50  # logging.CRITICAL


@dataclass(frozen=True)
class Skeleton:
    """What a class of transformers says of its weights.

    Attributes:
        model: the class made without weights.
        shapes: name of each weight in memory (parameters, and buffers that are saved) -> its shape.
        tied: weight -> the weight whose memory it shares under this configuration.
    """

    model: PreTrainedModel
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    tied: Mapping[str, str] = field(repr=False)

    def group(self, live: str) -> tuple[str, ...]:
        """Every name of the weight that `live` is a name of, the one that transformers writes first."""
        first = self._first(live)
        return (first, *(name for name in self.tied if name != first and self._first(name) == first))

    def _first(self, live: str) -> str:
        seen = set()
        while live in self.tied and live not in seen:
            seen.add(live)
            live = self.tied[live]
        return live


def skeleton_of(config: Mapping[str, Any]) -> Skeleton | None:
    """The model that a configuration describes; None where transformers does not know it or cannot make it.

    Args:
        config: as config.json holds it. Its first architecture is the class; without one, the class that transformers
            takes for text generation, or else whatever it has for the model type.
    """
    return _made(json.dumps(dict(config), sort_keys=True, default=str))


@lru_cache(maxsize=32)
def _made(text: str) -> Skeleton | None:
    config = json.loads(text)
    if not config.get("model_type"):
        return None
    import torch
    from transformers import initialization

    with _quiet():
        found = _class_and_config(config)
        if found is None:
            return None
        cls, settings = found
        try:
            with torch.device("meta"), initialization.no_init_weights():
                model = cls(settings)
        except Exception:  # whatever a class does with a configuration that does not suit it: then nothing is known
            return None
        state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return Skeleton(model, state, dict(model.all_tied_weights_keys))


def settings_of(config: Mapping[str, Any]) -> PreTrainedConfig | None:
    """A configuration as its class reads it, defaults filled in; None where transformers does not know or refuses it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config.get("model_type") not in CONFIG_MAPPING:
        return None
    try:
        return CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    except Exception:  # a value that the class refuses
        return None


def _class_and_config(config: dict[str, Any]) -> tuple[type[PreTrainedModel], Any] | None:
    import transformers
    from transformers.models.auto import modeling_auto

    settings = settings_of(config)
    if settings is None:
        return None
    named = (config.get("architectures") or [None])[0]
    if named is not None:
        cls = getattr(transformers, str(named), None)
        return (cls, settings) if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel) else None
    for mapping in (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING,
        modeling_auto.MODEL_MAPPING,
    ):
        found: Any = mapping.get(type(settings), None)
        if found is not None:
            return (found[0] if isinstance(found, tuple) else found), settings
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """What transformers remarks about a configuration was said when the model was loaded, or will be."""
    import warnings

    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(_SILENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
