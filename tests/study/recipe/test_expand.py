"""Lists multiply, seeds share a group, and RLHF that the study makes is merged seed by seed."""

from mergetool.study.candidates.rlhf import rlhf_group
from mergetool.study.recipe.expand import expand
from tests.study import tiny


def align(**changes):
    return {"name": "adamw", "align": {"method": "adamw", "seed": [0, 1]}, **changes}


def test_lists_multiply_and_seeds_share_a_group(folder):
    study = tiny.study(
        folder,
        models={"base": "base", "sft": "sft", "rlhf": {"align": "adamw"}},
        candidates=[
            align(),
            {"name": "ondare", "align": {"method": "ondare", "every": [1, "total"], "density": 0.1, "seed": [0, 1]}},
            {"name": "ties", "merge": {"merge_method": "ties", "weight": [0.3, 0.7], "density": [0.2, 0.8]}},
        ],
        align_defaults={"data": {"train": "pairs_validation.jsonl"}},
    )
    found = expand(study)
    assert len(found) == 2 + 2 + 4 + 2 * 4
    assert rlhf_group(study, found) == "adamw"
    groups = list(dict.fromkeys(one.group for one in found))
    assert groups[:5] == ["sft", "base", "adamw", "ondare K=1", "ondare K=total"]
    assert len(groups) == 5 + 4
    merged = next(one for one in found if one.name == "ties w=0.3 density=0.8 seed=1".replace("density", "p"))
    assert merged.needs == "adamw seed=1"
    ondare = next(one for one in found if one.name == "ondare K=total seed=1")
    assert ondare.recipe["merging"] == {"method": "ondare", "every": "total", "density": 0.1, "seed": 1}
    assert ondare.recipe["training"]["seed"] == 1
