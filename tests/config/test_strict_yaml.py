"""A mistake in a recipe is one line: the file, the place, the problem, the next step."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from mergetool.config.strict_yaml import documents, load_yaml, parse_yaml, validate
from mergetool.errors import RecipeError


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Merging(Strict):
    method: Literal["adamw", "ondare"] = "adamw"
    density: float = Field(1.0, gt=0, le=1)

    @field_validator("method")
    @classmethod
    def _not_adam(cls, value: str) -> str:
        if value == "adamw":
            raise ValueError("adamw merges nothing; take ondare")
        return value


class Entry(Strict):
    model: str
    weight: float | list[float] = 1.0
    merging: Merging | None = None


class Recipe(Strict):
    models: list[Entry] = []
    merging: Merging = Merging.model_construct()
    beta: float = 0.1


def problem(mapping: dict) -> str:
    with pytest.raises(RecipeError) as caught:
        validate(Recipe, mapping, "r.yaml")
    return str(caught.value)


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    assert problem({"merging": {"densty": 0.5}}) == "r.yaml: merging.densty: unknown key; did you mean 'density'?"
    assert problem({"betta": 1}) == "r.yaml: betta: unknown key; did you mean 'beta'?"


def test_an_unknown_key_inside_a_list_or_an_optional_part_names_the_nearest_one() -> None:
    assert problem({"models": [{"model": "a", "wieght": 1}]}).startswith(
        "r.yaml: models[0].wieght: unknown key; did you mean 'weight'?"
    )
    assert problem({"models": [{"model": "a", "merging": {"densty": 1}}]}).startswith(
        "r.yaml: models[0].merging.densty: unknown key; did you mean 'density'?"
    )


def test_an_unknown_word_names_the_nearest_one() -> None:
    assert problem({"merging": {"method": "ondair"}}) == (
        "r.yaml: merging.method: 'ondair' is not known; did you mean 'ondare'?"
    )


def test_a_missing_key_says_what_to_add() -> None:
    assert problem({"models": [{}]}) == "r.yaml: models[0].model: required, but missing; add `model:`"


def test_a_value_out_of_range_or_of_the_wrong_kind_shows_the_value() -> None:
    assert (
        problem({"merging": {"density": 2}})
        == "r.yaml: merging.density: should be less than or equal to 1, not 2; correct it there"
    )
    assert problem({"beta": "much"}) == "r.yaml: beta: should be a valid number, not 'much'; correct it there"
    assert problem({"merging": 3}) == "r.yaml: merging: should be a mapping of keys to values, not 3; correct it there"


def test_a_union_counts_as_one_place() -> None:
    assert problem({"models": [{"model": "a", "weight": "x"}]}).count("models[0].weight") == 1


def test_a_validator_of_ours_gives_problem_and_next_step() -> None:
    assert problem({"merging": {"method": "adamw"}}) == "r.yaml: merging.method: adamw merges nothing; take ondare"


def test_several_problems_are_all_told() -> None:
    text = problem({"betta": 1, "merging": {"density": 0}})
    assert text.startswith("r.yaml: 2 problems: ")
    assert "betta" in text
    assert "merging.density" in text


def test_numbers_without_a_dot_are_numbers(tmp_path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: 1e-6\nb: -2E3\nc: .5e1\nd: 1e\ne: 5.0e-4\n")
    assert load_yaml(path) == {"a": 1e-6, "b": -2000.0, "c": 5.0, "d": "1e", "e": 5e-4}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: {c: 1,\n  c: 2}\n", "line 3, column 3: the key 'c' is given twice"),
        ("a: [1, 2\n", "line 2"),
        ("a: 1\n\tb: 2\n", "line 2"),
        ("", "is empty"),
        ("- a\n- b\n", "holds a list"),
        ("? [a, b]\n: 1\n", "a key must be a word"),
        ("a: \x01\n", "special characters are not allowed"),
    ],
)
def test_yaml_that_cannot_be_read_is_one_line_with_the_place(tmp_path, text: str, says: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_yaml(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_directory_and_a_binary_are_told_apart(tmp_path) -> None:
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    for name, says in (("none.yaml", "no such file"), (".", "is a directory"), ("b.yaml", "not a text file")):
        with pytest.raises(RecipeError, match=says):
            load_yaml(tmp_path / name)


def test_documents_are_cut_where_they_begin_and_keep_their_lines() -> None:
    text = "# of two\na: 1\n---\nb: [\n  2]\n---\n# nothing\n"
    parts = documents(text)
    assert [parse_yaml(part, "x") for part in parts] == [{"a": 1}, {"b": [2]}]
    assert parts[1].splitlines().index("b: [") == text.splitlines().index("b: [")
    assert documents("") == [""]
    assert documents("a: [") == ["a: ["]
