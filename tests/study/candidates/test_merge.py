"""Weight is RLHF's share and alpha SFT's; what alignment added can be merged alone."""

import pytest

from mergetool.errors import RecipeError
from mergetool.study.recipe.expand import expand
from tests.study import tiny


def test_weight_is_the_share_of_rlhf_and_alpha_the_share_of_sft(folder):
    by = {}
    for key, value in (("weight", 0.7), ("alpha", 0.3)):
        study = tiny.study(folder, candidates=[{"name": "l", "merge": {"merge_method": "linear", key: value}}])
        by[key] = expand(study)[-1].recipe
    assert by["weight"] == by["alpha"]
    assert by["weight"]["models"] == [
        {"model": "SFT", "parameters": {"weight": 0.3}},
        {"model": "RLHF", "parameters": {"weight": 0.7}},
    ]


def test_what_alignment_added_can_be_merged_alone(folder):
    study = tiny.study(
        folder,
        candidates=[
            {"name": "t", "merge": {"merge_method": "ties", "relative_to": "sft", "weight": 0.7, "alpha": 0, "density": 0.2}}
        ],
    )
    recipe = expand(study)[-1].recipe
    assert recipe["base_model"] == "SFT"
    assert recipe["models"] == [{"model": "RLHF", "relative_to": "SFT", "parameters": {"weight": 0.7, "density": 0.2}}]


def test_each_model_has_a_calibration_of_its_own_or_both_have_one(folder):
    rows, stay = (str(folder / name) for name in ("pairs_test.jsonl", "skills_test.jsonl"))
    of = {"sft": {"data": "skills_test.jsonl", "limit": 3}, "rlhf": {"data": rows}}
    found = {}
    for name, given in (("each", {"calibration": of}), ("both", {"calibration": {"data": stay}}), ("study", {})):
        merge = {"merge_method": "fisher", "weight": [0.3, 0.6], "normalize_fisher": True, **given}
        study = tiny.study(folder, candidates=[{"name": "f", "merge": merge}], calibration={"data": stay, "limit": 5})
        found[name] = [one.recipe for one in expand(study) if one.kind == "merge"]
    assert [model["calibration"] for model in found["each"][1]["models"]] == [{"data": [stay], "limit": 3}, {"data": [rows]}]
    assert [model["parameters"]["weight"] for model in found["each"][0]["models"]] == [0.7, 0.3]
    assert "calibration" not in found["each"][0]
    assert found["both"][0]["calibration"] == {"data": [stay]}
    assert found["study"][0]["calibration"] == {"data": [stay], "limit": 5}
    given = {"merge_method": "linear", "weight": 0.3, "calibration": of}
    with pytest.raises(RecipeError, match="'f': linear reads no calibration of each model"):
        expand(tiny.study(folder, candidates=[{"name": "f", "merge": given}]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sft": {"data": "a"}}, "rlhf"),
        ({"sft": {"data": "a"}, "rlhf": {"date": "b"}}, "date"),
        ({"date": "a"}, "date"),
        (3, ""),
    ],
)
def test_a_calibration_of_neither_form_is_one_line_with_its_key(folder, given, said):
    merge = {"merge_method": "fisher", "weight": 0.3, "calibration": given}
    with pytest.raises(RecipeError, match=said) as caught:
        expand(tiny.study(folder, candidates=[{"name": "f", "merge": merge}]))
    assert "\n" not in str(caught.value)
    assert "calibration" in str(caught.value)
