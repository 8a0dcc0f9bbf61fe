"""An extraction is a recipe like any other: a whole task vector, written as an adapter."""

from __future__ import annotations

import pytest

from mergetool.errors import RecipeError
from mergetool.merge.extract import extraction


def test_the_recipe_is_the_whole_task_vector_as_an_adapter() -> None:
    found = extraction("lab:rlhf", "lab:sft", 8, "bfloat16")
    assert (found.output, found.rank, found.dtype) == ("adapter", 8, "bfloat16")
    assert [(entry.parameters["weight"]) for entry in found.models] == [1.0]
    assert found.base_model is not None
    assert found.base_model.endswith("sft")


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(RecipeError, match="rank"):
        extraction("lab:rlhf", "lab:sft", 0)
