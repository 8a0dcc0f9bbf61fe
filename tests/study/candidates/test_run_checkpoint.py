"""Early stopping is a family of candidates from one training, and ready checkpoints of a run are one too."""

import pytest

from mergetool.errors import MergetoolError
from mergetool.study import check_study, run_study
from mergetool.study.recipe.expand import expand
from tests.study import tiny


def study(folder, checkpoints, steps=4, **more):
    training = {"learning_rate": 1e-3, "per_device_train_batch_size": 4, "use_cpu": True, "max_length": 64}
    return tiny.study(
        folder,
        align_defaults={
            "data": {"train": "pairs_validation.jsonl"},
            "training": {**training, **({"max_steps": steps} if steps else {})},
        },
        candidates=[{"name": "adamw", "align": {"method": "adamw", "checkpoints": checkpoints, **more}}],
    )


def along(recipe):
    return [(one.group, one.settings, one.needs) for one in expand(recipe) if one.kind == "along"]


def test_shares_steps_and_every_name_the_same_points(folder):
    expected = [(f"adamw step={step}", {"step": step}, "adamw") for step in (1, 2, 3)]
    assert along(study(folder, [0.25, 0.5, 0.75])) == expected
    assert along(study(folder, [1, 2, 3])) == expected
    assert along(study(folder, {"every": 1})) == expected
    assert along(study(folder, [0.25, 0.26])) == expected[:1], "two shares of one step are one candidate"
    assert along(study(folder, [0.5], steps=None)) == [("adamw share=0.5", {"share": 0.5}, "adamw")]
    assert {one.family for one in expand(study(folder, [1])) if one.kind == "along"} == {"adamw along training"}


def test_every_seed_has_its_points_in_one_group(folder):
    found = along(study(folder, [2], seed=[0, 1]))
    assert found == [("adamw step=2", {"step": 2}, "adamw seed=0"), ("adamw step=2", {"step": 2}, "adamw seed=1")]


@pytest.mark.parametrize(
    ("checkpoints", "steps", "says"),
    [
        ({"every": 2}, None, "set training.max_steps"),
        ({"every": 9}, 4, "before its first checkpoint"),
        ({"every": 0}, 4, "every: N"),
        ([4], 4, "step 4 of 4"),
        ([0.5, 2], 4, "shares of the run"),
        ([1.5], 4, "whole number"),
        ([], 4, "shares of the run"),
        ([-1], 4, "shares of the run"),
    ],
)
def test_a_place_that_no_run_has_is_said_in_one_line(folder, checkpoints, steps, says):
    with pytest.raises(MergetoolError, match=says) as caught:
        check_study(study(folder, checkpoints, steps))
    assert "\n" not in str(caught.value)


def test_the_points_of_a_run_cost_one_training_and_come_back_after_a_kill(folder, tmp_path, monkeypatch):
    from mergetool.align import run as training

    trained = []
    real = training.align
    monkeypatch.setattr(training, "align", lambda recipe, out, **more: trained.append(out.name) or real(recipe, out, **more))
    recipe, out = study(folder, [0.25, 0.5]), tmp_path / "out"
    first = run_study(recipe, out)
    assert not first.failures
    assert trained == ["adamw"]
    values = [row["scores"]["test"]["skills.nll"]["value"] for row in first.rows if row["name"].startswith("adamw")]
    assert len(set(values)) == 3, "three models, each further along"
    assert first.rows[-1]["recipe"] == first.rows[-2]["recipe"]

    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    (out / "results.jsonl").write_text("".join(lines[:-2]))
    again = run_study(recipe, out)
    assert (again.ran, trained) == (2, ["adamw"])
    assert [row["scores"] for row in again.rows] == [row["scores"] for row in first.rows]

    more = run_study(study(folder, [0.25, 0.5, 0.75]), out)
    assert not more.failures
    assert trained == ["adamw", "adamw"], "a point that the training had not kept needs it once more"
    assert [row["scores"] for row in more.rows][:-1] == [row["scores"] for row in first.rows]


def test_a_run_that_fails_takes_its_points_with_it_and_nothing_else(folder, tmp_path):
    recipe = study(folder, [50], steps=None, num_train_epochs=1)
    recipe = tiny.study(
        folder,
        align_defaults=recipe.align_defaults.model_dump(exclude_none=True),
        candidates=[
            {"name": "short", "align": {"method": "adamw", "checkpoints": [50]}},
            {"name": "linear", "merge": {"merge_method": "linear", "weight": 0.5}},
        ],
    )
    result = run_study(recipe, tmp_path / "out")
    assert [name for name, _ in result.failures] == ["short", "short step=50"]
    assert "step 50, and the run has" in result.failures[0][1]
    assert "its run 'short' could not be made" in result.failures[1][1]
