"""The card: where a result comes from, what it may be used for, and what a person has written into it, which stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mergetool.checkpoint.manifest import Input, Manifest
from mergetool.checkpoint.place import Directory
from mergetool.errors import CheckpointError
from mergetool.hub.card import Evaluation, completed, licences, merge_card, metadata, origin

MIT, OTHER = {"license": "mit"}, {"license": "other", "license_name": "research-only", "license_link": "LICENSE"}
SCORE = Evaluation("my pairs", "test", "reward margin", "nats", 1.5, 1.25, 1.75, 300)


def manifest(*inputs: dict) -> Manifest:
    names = [one["model"] for one in inputs] or ["org/a"]
    return Manifest(
        "merge", {"merge_method": "ties", "base_model": names[0], "models": [{"model": name} for name in names[1:]]},
        inputs=[Input(**one) for one in inputs], distances={names[0]: 12.5}, seed=0, mergetool="0.1.0",
        versions={"torch": "2"}, outputs_sha256={"model.safetensors": "abc"},
    )  # fmt: skip


def block(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize(
    ("inputs", "licence", "warning"),
    [
        ([{"model": "a", **MIT}, {"model": "b", **MIT}], MIT, ""),
        ([{"model": "a", **OTHER}], OTHER, ""),
        ([{"model": "a", **MIT}, {"model": "b", **OTHER}], {}, "the licences of the inputs differ (a: mit, b: research-only)"),
        ([{"model": "a", **MIT}, {"model": "b"}], {}, "the licence of b is not known (a: mit)"),
        ([{"model": "a"}], {}, ""),
    ],
    ids=["same", "named", "differ", "unknown", "none"],
)
def test_a_result_has_a_licence_only_where_all_its_inputs_have_the_same(inputs: list, licence: dict, warning: str) -> None:
    found, told = licences(manifest(*inputs))
    assert found == licence
    assert told.startswith(warning)
    assert bool(told) == bool(warning)


def test_the_tree_is_drawn_of_what_lies_on_the_hub_and_not_of_directories() -> None:
    found = metadata(manifest({"model": "org/a"}, {"model": "./mine"}, {"model": "org/b@v1+you/lora"}))
    assert found["base_model"] == ["org/a", "org/b", "you/lora"]
    assert found["base_model_relation"] == "merge"
    assert found["tags"] == ["merge", "mergetool", "ties"]
    assert "base_model" not in metadata(manifest({"model": "./mine"}))


def test_a_card_of_a_merge_holds_its_recipe_inputs_and_hashes() -> None:
    made = manifest({"model": "org/a", "revision": "0123456789abcdef", **MIT})
    text = merge_card(made)
    assert "| org/a | 0123456789ab | mit | 12.5 |" in text
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == made.recipe
    assert "| model.safetensors | `abc` |" in text


def test_what_a_person_wrote_stays_and_a_later_measurement_replaces_the_earlier() -> None:
    made = manifest({"model": "org/a", **MIT})
    mine = merge_card(made).replace("tags:\n", "language: de\ntags:\n- mine\n").replace("license: mit", "license: gpl-3.0")
    first = completed(mine + "\nMy own words.\n", made, [SCORE], "m")
    again = completed(first, made, [Evaluation(**{**vars(SCORE), "value": 2.0})], "m")
    assert block(again)["license"] == "gpl-3.0"
    assert block(again)["language"] == "de"
    assert block(again)["tags"][0] == "mine"
    assert set(block(again)["tags"]) == {"mine", "merge", "mergetool", "ties"}
    assert "My own words." in again
    assert again.count("## Evaluation") == 1
    assert "| my pairs, test | reward margin | 2.0000 | 1.2500 to 1.7500 | 300 | nats |" in again
    assert block(again)["model-index"][0]["results"][0]["metrics"][0]["value"] == 2.0
    assert completed(again, made, [], "m") == again, "without new numbers the earlier ones stay"


def test_a_card_whose_metadata_cannot_be_read_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"README\.md: its metadata cannot be read"):
        completed("---\n- a\n- list\n---\n", manifest({"model": "org/a"}), [], "m")


def test_the_licence_of_a_model_on_this_disk_is_read_from_its_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: mine\n---\n")
    assert origin("m", Directory(tmp_path), "sft") == Input("m", "sft", license="other", license_name="mine")
