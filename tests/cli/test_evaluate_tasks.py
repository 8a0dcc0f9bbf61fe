"""What --tasks names: metrics of ours, and everything else as a benchmark."""

from __future__ import annotations

import pytest

from mergetool.cli.evaluate_tasks import Files, names_of
from mergetool.errors import RecipeError


def test_names_are_told_apart_by_the_table_of_metrics_and_keep_their_order() -> None:
    assert names_of("nll, gsm8k,exact_match,hellaswag:acc") == (["nll", "exact_match"], ["gsm8k", "hellaswag:acc"])
    assert names_of(None) == (None, [])


def test_a_list_without_a_name_is_an_error() -> None:
    with pytest.raises(RecipeError, match="names nothing; write names with commas"):
        names_of(" , ")


@pytest.mark.parametrize(
    ("files", "given"),
    [(Files(None, (), (), True), False), (Files("a", (), (), False), True), (Files(None, ("a",), (), False), True),
     (Files(None, (), ("a",), False), True)],
)  # fmt: skip
def test_data_are_given_where_any_file_is(files: Files, given: bool) -> None:
    assert files.given is given
