"""Every point of an offline grid is an exact merge recipe."""

from mergetool.study.candidates.offline_recipe import merge_recipe


def test_deltas_start_from_base_or_where_alignment_started():
    paper = merge_recipe("ties", 0.7, density=0.5)
    assert paper["base_model"] == "BASE"
    assert [entry.get("relative_to") for entry in paper["models"]] == [None, None]
    online = merge_recipe("dare_linear", 0.7, "sft", density=0.5)
    assert online["base_model"] == "SFT"
    assert [(entry["model"], entry["relative_to"]) for entry in online["models"]] == [("RLHF", "SFT"), ("SFT", "BASE")]


def test_slerp_has_a_place_between_sft_and_rlhf():
    assert merge_recipe("slerp", 0.25)["parameters"] == {"t": 0.25}
