"""A card has a licence only where all inputs have the same one, and keeps what a person has written into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.checkpoint.manifest import Input, Manifest
from mergetool.checkpoint.place import Directory
from mergetool.hub.card import Evaluation, completed, licences, merge_card, origin

RECIPE = {"merge_method": "linear", "models": [{"model": "org/a"}, {"model": "org/b"}]}


def manifest(*found: str | None) -> Manifest:
    inputs = [Input(f"org/{name}", license=one) for name, one in zip("ab", found, strict=True)]
    return Manifest("merge", RECIPE, inputs=inputs, seed=0, mergetool="0.1.0", versions={"torch": "2"})


@pytest.mark.parametrize(
    ("found", "licence", "says"),
    [
        (("mit", "mit"), {"license": "mit"}, ""),
        (("mit", "apache-2.0"), {}, "differ"),
        (("mit", None), {}, "the licence of org/b is not known"),
        ((None, None), {}, ""),
    ],
)
def test_the_result_has_a_licence_where_its_inputs_share_one(found: tuple, licence: dict, says: str) -> None:
    card, warning = licences(manifest(*found))
    assert card == licence
    assert says in warning
    assert bool(says) == bool(warning)


def test_the_licence_of_a_model_on_this_disk_is_read_from_its_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: mine\n---\n")
    assert origin("m", Directory(tmp_path), "sft") == Input("m", "sft", license="other", license_name="mine")


def test_what_a_person_wrote_stays_and_scores_are_replaced() -> None:
    mine = merge_card(manifest("mit", "mit")).replace("license: mit", "license: openrail") + "\nMy words.\n"
    score = Evaluation("pairs", "test", "accuracy", "share", 0.5, 0.4, 0.6, 10)
    once = completed(mine, manifest("mit", "mit"), [score], "out")
    twice = completed(once, manifest("mit", "mit"), [score], "out")
    assert once == twice
    assert "license: openrail" in once
    assert "My words." in once
    assert once.count("| pairs, test | accuracy | 0.5000 | 0.4000 to 0.6000 | 10 | share |") == 1
