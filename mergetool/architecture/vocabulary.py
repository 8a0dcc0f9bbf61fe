"""Which weights have a row for each word: those whose shape changes where the configuration's vocabulary does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mergetool.architecture.reading import Checkpoint, reading_of
from mergetool.architecture.skeleton import skeleton_of
from mergetool.errors import CheckpointError

_MORE = 64


def vocabulary_holder(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that says how many words there are: itself, or its text_config."""
    text = config.get("text_config")
    return text if isinstance(text, dict) and "vocab_size" not in config else config


class WordTensors:
    """The tensors of one checkpoint that have a row for each word.

    Attributes:
        weight: tensor on disk -> the weight in memory that it is.

    Raises:
        CheckpointError: transformers does not know the architecture, or a weight counts words in another dimension.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config
        reading = reading_of(checkpoint)
        size = vocabulary_holder(config).get("vocab_size")
        larger = None
        if reading is not None:
            more = (size if isinstance(size, int) else 0) + _MORE
            text = config.get("text_config")
            if isinstance(text, dict) and vocabulary_holder(config) is text:
                larger = skeleton_of({**config, "text_config": {**text, "vocab_size": more}})
            else:
                larger = skeleton_of({**config, "vocab_size": more})
        if reading is None or larger is None:
            raise CheckpointError(
                f"{checkpoint.name}: which tensors have a row for each word is not known: "
                f"transformers cannot make a model of model_type {config.get('model_type')!r}",
                "give the models one vocabulary first, or leave tokenizer_source out where they have one",
            )
        self._reading = reading
        weights = set()
        for weight, shape in reading.skeleton.shapes.items():
            grown = larger.shapes.get(weight, shape)
            if shape == grown:
                continue
            if shape[1:] != grown[1:] and not (len(shape) == 2 and shape[0] == 1):
                raise CheckpointError(
                    f"{checkpoint.name}: weight '{weight}' does not count words by rows", "give the models one vocabulary first"
                )
            weights.add(weight)
        self.weight = {name: weight for name, weight in reading.live.items() if weight in weights}

    def holding(self, weight: str) -> str | None:
        """The tensor on disk that holds a weight, under its own name or one that it is tied to."""
        return self._reading.stored(weight)
