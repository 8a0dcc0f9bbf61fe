"""What a recipe names is known by what it holds: a file that has moved is the same, one that has changed is not."""

import shutil

from mergetool.fingerprints import checkpoint_identity, data_identity
from mergetool.study.candidates.content import models_by_content, with_calibration_by_content, with_rows_by_content
from tests.study import tiny


def test_rows_and_rewards_are_known_by_content(folder, tmp_path):
    rows = shutil.copy(folder / "pairs_test.jsonl", tmp_path / "moved.jsonl")
    (tmp_path / "r.py").write_text("brief = len")
    recipes = [
        {"data": {"train": str(train), "limit": 3}, "reward": reward}
        for train, reward in ((folder / "pairs_test.jsonl", f"{tmp_path}/r.py:brief"), (rows, [f"{tmp_path}/r.py:brief"]))
    ]
    one, other = (with_rows_by_content(recipe, checkpoint_identity) for recipe in recipes)
    assert one == other, "one reward is a list of one"
    assert one["data"] == {"train": data_identity(folder / "pairs_test.jsonl"), "limit": 3}
    assert one["reward"] == [f"{data_identity(tmp_path / 'r.py')}:brief"]
    changed = tiny.write(tmp_path / "changed.jsonl", tiny.PAIRS[:3])
    again = with_rows_by_content({"data": {"train": str(changed)}}, checkpoint_identity)
    assert again["data"]["train"] != one["data"]["train"]


def test_rows_that_should_stay_are_known_by_content(folder, tmp_path):
    moved = shutil.copy(folder / "skills_test.jsonl", tmp_path / "moved.jsonl")
    changed = tiny.write(tmp_path / "changed.jsonl", tiny.SKILLS[:3])

    def known(rows) -> dict:
        recipe = {"data": {}, "merging": {"method": "replay", "lambda": 2, "rows": {"data": str(rows), "limit": 3}}}
        return with_rows_by_content(recipe, checkpoint_identity)["merging"]

    found = known(folder / "skills_test.jsonl")
    assert found["rows"] == {"data": [data_identity(folder / "skills_test.jsonl")], "limit": 3}
    assert found["lambda"] == 2
    assert found == known(moved)
    assert found != known(changed)


def test_models_of_a_merge_are_known_by_content_wherever_they_are_named(folder):
    sft, rlhf = (checkpoint_identity(folder / name) for name in ("sft", "rlhf"))
    entries = [{"model": f"{folder}/sft+{folder}/rlhf"}, {"model": str(folder / "rlhf"), "relative_to": str(folder / "sft")}]
    recipe = {"base_model": str(folder / "sft"), "models": entries}
    assert models_by_content(recipe, checkpoint_identity) == [sft, sft, rlhf, rlhf, sft]
    assert models_by_content({"base_model": sft, "models": []}, checkpoint_identity) == [], "a hash is no path"


def test_the_calibrations_of_a_merge_are_known_by_content(folder, tmp_path):
    moved = shutil.copy(folder / "skills_test.jsonl", tmp_path / "moved.jsonl")
    changed = tiny.write(tmp_path / "changed.jsonl", tiny.SKILLS[:3])

    def known(rows) -> dict:
        own = {"models": [{"model": "a", "calibration": {"data": [str(rows)]}}, {"model": "b"}]}
        return with_calibration_by_content({"merge_method": "regmean", **own})

    assert known(folder / "skills_test.jsonl") == known(moved) != known(changed)
    assert known(moved)["models"][1] == {"model": "b"}
