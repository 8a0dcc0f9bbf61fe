"""A configuration of other layers counts them, and says of each layer what its origin said."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Gemma2Config, Gemma3Config, GPT2Config, LlamaConfig, Qwen3Config

from mergetool.architecture.stacking import stacked
from mergetool.errors import CheckpointError

SLIDING, FULL = "sliding_attention", "full_attention"


def taken(config: dict[str, Any], *numbers: int) -> list[tuple[dict[str, Any], int]]:
    return [(config, i) for i in numbers]


@pytest.mark.parametrize(("made", "key"), [(LlamaConfig(), "num_hidden_layers"), (GPT2Config(), "n_layer")])
def test_the_depth_has_the_key_of_the_class(made: Any, key: str) -> None:
    config = made.to_dict()
    found = stacked(config, taken(config, 0, 1, 1))
    assert found == {**config, key: 3}
    assert config[key] != 3


def test_kinds_of_layers_are_those_of_their_origins_though_the_file_does_not_say_them() -> None:
    config = Gemma2Config(num_hidden_layers=4).to_dict()
    del config["layer_types"]
    assert stacked(config, taken(config, 0, 1, 1, 2))["layer_types"] == [SLIDING, FULL, FULL, SLIDING]
    assert "layer_types" not in stacked(config, taken(config, 0, 1, 2)), "what the class would make is not written"
    other = Qwen3Config(num_hidden_layers=2, layer_types=[FULL, SLIDING]).to_dict()
    assert stacked(other, [*taken(other, 1), *taken(other, 1)])["layer_types"] == [SLIDING, SLIDING]


def test_the_depth_of_a_part_is_counted_there() -> None:
    config = Gemma3Config().to_dict()
    found = stacked(config, taken(config, 0, 5, 5))
    assert found["text_config"]["num_hidden_layers"] == 3
    assert found["text_config"]["layer_types"] == [SLIDING, FULL, FULL]
    assert found["vision_config"] == config["vision_config"]


def test_of_an_unknown_architecture_the_usual_key_counts_or_there_is_an_error() -> None:
    config = {"model_type": "nobodys", "num_hidden_layers": 2, "layer_kinds": ["a", "b"]}
    assert stacked(config, taken(config, 1, 1, 0)) == {**config, "num_hidden_layers": 3, "layer_kinds": ["b", "b", "a"]}
    with pytest.raises(CheckpointError, match="which key says the number of layers"):
        stacked({"model_type": "nobodys"}, [])
