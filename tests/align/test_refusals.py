"""What a library refuses is one line with the recipe's field; what breaks in our own lines keeps its traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mergetool.align.refusals import field_named, of_a_library, refusals
from mergetool.errors import RecipeError


@pytest.fixture(scope="module")
def config() -> Any:
    from trl import SFTConfig

    return SFTConfig("unused", use_cpu=True, bf16=False, report_to="none")


def test_an_error_of_a_library_names_the_field_that_the_recipe_sets(config: Any) -> None:
    from trl.data_utils import apply_chat_template

    with pytest.raises(RecipeError, match=r"^training: 'Invalid keys in the example"), refusals(config, {}):
        apply_chat_template({"nothing": 1}, None)  # type: ignore[arg-type]
    message = "when `padding_free=True` without packing, `max_length` is not enforced"
    assert field_named(message, config, {"max_length": 4}) == "max_length"
    assert field_named(message, config, {}) == "padding_free"
    assert field_named("nothing of the kind", config, {}) is None


def test_an_error_of_ours_and_one_of_the_disk_pass(config: Any) -> None:
    with pytest.raises(ZeroDivisionError), refusals(config, {}):
        1 / 0  # noqa: B018
    with pytest.raises(FileNotFoundError), refusals(config, {}):
        Path("/no/such/file").read_bytes()
    assert not of_a_library(ValueError("not raised"))
