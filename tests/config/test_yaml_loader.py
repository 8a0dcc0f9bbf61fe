"""YAML of recipes: plain values, and no more of them than a person writes, however few letters stand for them."""

from __future__ import annotations

import time

import pytest
import yaml

from mergetool.config.strict_yaml import documents, parse_yaml
from mergetool.config.yaml_loader import loader
from mergetool.errors import RecipeError
from tests.fuzz.damage import bomb


def refused(text: str) -> str:
    began = time.process_time()
    with pytest.raises(RecipeError) as error:
        parse_yaml(text, "recipe.yaml")
    assert time.process_time() - began < 5
    return str(error.value)


@pytest.mark.parametrize("key", ["models", "parameters", "seed", "anything"])
def test_aliases_that_expand_to_a_billion_values_are_refused_in_every_key(key: str) -> None:
    assert "stands for more than 100,000 values" in refused(f"{key}: {bomb()}")
    assert "stands for more than" in refused(f"{key}: {{deep: [{bomb()}]}}")


def test_merged_mappings_are_counted_too() -> None:
    lines = ["b0: &b0 {x: 1}"] + [f"b{at}: &b{at}\n  <<: [*b{at - 1}, *b{at - 1}]" for at in range(1, 30)]
    assert "stands for more than" in refused("\n".join(lines))


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 60 + "]" * 60, "{a: " * 60 + "1" + "}" * 60])
def test_depth_is_refused(text: str) -> None:
    assert "nests too deeply" in refused(f"a: {text}")
    assert documents(f"a: {text}") == [f"a: {text}"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("9" * 5000, "a number of 5,000 digits"),
        ("&a [*a]", "holds itself"),
        ("!!binary aGk=", "no kind of a recipe's values"),
        ("!!python/object/apply:os.system [ls]", "no kind of a recipe's values"),
        ("!!set {a}", "no kind of a recipe's values"),
        ('"a\\0b"', "NUL"),
        ('"\\ud800"', "half of a pair"),
        ("!!int x", "invalid literal"),
        ("!!float x", "could not convert"),
    ],
)
def test_what_is_no_plain_value_is_one_line_with_its_place(value: str, told: str) -> None:
    line = refused(f"a: 1\nb: {value}")
    assert told in line
    assert "line 2" in line


def test_a_date_is_the_text_that_it_looks_like() -> None:
    assert parse_yaml("name: 2026-02-30", "r") == {"name": "2026-02-30"}


def test_plain_yaml_is_what_pyyaml_reads() -> None:
    text = "a: &x {b: [1, 2.5, yes, null, ~, 'é']}\nc: *x\nd:\n  <<: *x\n  e: 0x1f\nf: 1e-6\n"
    assert yaml.load(text, Loader=loader()) == {**yaml.safe_load(text), "f": 1e-6}
