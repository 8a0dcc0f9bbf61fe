"""Weight is RLHF's share and alpha SFT's; what alignment added can be merged alone."""

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
