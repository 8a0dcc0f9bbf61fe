"""Every point of an offline grid is an exact merge recipe."""

from mergetool.study.candidates.offline_recipe import merge_recipe
from tests.study import tiny


def test_deltas_start_from_base_or_where_alignment_started():
    paper = merge_recipe("ties", 0.7, density=0.5)
    assert paper["base_model"] == "BASE"
    assert [entry.get("relative_to") for entry in paper["models"]] == [None, None]
    online = merge_recipe("dare_linear", 0.7, "sft", density=0.5)
    assert online["base_model"] == "SFT"
    assert [(entry["model"], entry["relative_to"]) for entry in online["models"]] == [("RLHF", "SFT"), ("SFT", "BASE")]


def test_slerp_has_a_place_between_sft_and_rlhf():
    assert merge_recipe("slerp", 0.25)["parameters"] == {"t": 0.25}


def test_a_share_for_each_layer_on_a_line_is_lines(folder) -> None:
    """Wang et al. 2024: the l-th of L layers has α + β·(l − 1)/(L − 1); what lies outside goes with the nearest layer."""
    import torch

    from mergetool.checkpoint.layout import read_layout
    from mergetool.checkpoint.reader import Reader
    from mergetool.merge import merge_tensors, plan_merge
    from mergetool.merge.recipe import MergeRecipe
    from mergetool.study.recipe.expand import expand

    def merged(weight) -> dict:
        merge = {"merge_method": "task_arithmetic", "relative_to": "sft", "alpha": 0, "weight": weight}
        one = expand(tiny.study(folder, candidates=[{"name": "l", "merge": merge}]))[-1]
        names = {"SFT": str(folder / "sft"), "RLHF": str(folder / "rlhf")}
        return dict(merge_tensors(plan_merge(MergeRecipe.model_validate(one.with_models(names)))))

    sft, rlhf = (
        {name: reader.tensor(name).clone() for name in reader.layout.tensors}
        for reader in (Reader(read_layout(folder / name)) for name in ("sft", "rlhf"))
    )
    depth = 1 + max(int(name.split(".")[2]) for name in sft if ".layers." in name)
    assert depth > 1
    lines, opposite = merged({"first": 0.2, "last": 1.4}), merged({"first": 1.4, "last": 0.2})
    for name, start in sft.items():
        at = int(name.split(".")[2]) if ".layers." in name else 0 if "embed" in name else depth - 1
        for found, (alpha, beta) in ((lines, (0.2, 1.2)), (opposite, (1.4, -1.2))):
            share = alpha + beta * at / (depth - 1)
            torch.testing.assert_close(found[name], start + share * (rlhf[name] - start), rtol=0, atol=1e-6)
    level, plain = merged({"first": 0.5, "last": 0.5}), merged(0.5)
    assert all(torch.equal(level[name], plain[name]) for name in plain), "no slope is one weight, bit for bit"
