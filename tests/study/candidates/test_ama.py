"""Ratios that differ from part to part, given or learned, are candidates like any other merge."""

from __future__ import annotations

import pytest
import torch

from mergetool.config.strict_yaml import validate
from mergetool.errors import MergetoolError
from mergetool.merge import MergeRecipe, merge_tensors, plan_merge
from mergetool.study import check_study, run_study, write_outputs
from mergetool.study.candidates.workspace import Workspace
from mergetool.study.recipe.expand import expand
from tests.study import tiny

AMA = {"data": {"train": "pairs_validation.jsonl"}, "training": {"steps": 3, "batch_size": 4, "learning_rate": 0.3}}


def one(folder, **entry):
    return tiny.study(folder, candidates=[{"name": "it", **entry}])


def tensors(recipe):
    return dict(merge_tensors(plan_merge(validate(MergeRecipe, recipe, "it"))))


@pytest.mark.parametrize("method", ["linear", "slerp", "task_arithmetic"])
def test_equal_shares_by_part_are_the_share_of_the_whole(folder, tmp_path, method):
    studies = [one(folder, merge={"merge_method": method, "weight": weight}) for weight in (0.3, [[0.3, 0.3]])]
    recipes = [expand(study)[-1].resolved_recipe(Workspace(study, tmp_path)) for study in studies]
    ours, theirs = map(tensors, recipes)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-7) for name in ours)


def test_a_part_with_share_one_is_rlhf_and_one_with_share_zero_is_sft(folder, tmp_path):
    study = one(folder, merge={"merge_method": "linear", "weight": [[0, 1]]})
    candidate = expand(study)[-1]
    assert candidate.name == "it w=0/1"
    found = tensors(candidate.resolved_recipe(Workspace(study, tmp_path)))
    sft, rlhf = (
        tensors({"merge_method": "linear", "models": [{"model": str(folder / name), "parameters": {"weight": 1}}]})
        for name in ("sft", "rlhf")
    )
    for name, tensor in found.items():
        first = "layers.0" in name or "embed" in name
        assert torch.equal(tensor, (sft if first else rlhf)[name]), name


def test_parts_makes_every_combination(folder):
    names = [c.name for c in expand(one(folder, merge={"merge_method": "linear", "alpha": [0.2, 0.6], "parts": 2}))]
    assert names[-4:] == ["it α=0.2/0.2", "it α=0.2/0.6", "it α=0.6/0.2", "it α=0.6/0.6"]


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"merge": {"merge_method": "linear", "weight": [[0.2, 0.4, 0.6]]}}, "3 parts of a model with 2 layers"),
        ({"merge": {"merge_method": "linear", "weight": [[0.2, 1.4]]}}, "is a share; give numbers from 0 to 1"),
        ({"ama": {"alpha": 1.4, **AMA}}, "less than or equal to 1"),
        ({"ama": {"alpha": 0.4, "blocks": 5, **AMA}}, "5 parts of a model with 2 layers"),
        ({"ama": {"alpha": 0.4, **AMA, "penalti": 1}}, "did you mean 'penalty'"),
        ({"ama": {"alpha": 0.4, "blocks": 2, "data": {"train": "nowhere.jsonl"}}}, "nowhere.jsonl"),
    ],
    ids=["parts", "share", "mean", "blocks", "misspelt", "data"],
)
def test_what_cannot_be_averaged_is_found_by_the_check(folder, entry, line):
    with pytest.raises(MergetoolError, match=line):
        check_study(one(folder, **entry))


def test_ama_candidates_are_learned_measured_and_not_learned_again(folder, tmp_path):
    study = tiny.study(folder, candidates=[{"name": "ama", "ama": {"alpha": [0.3, 0.6], "blocks": 2, **AMA}}])
    result = run_study(study, tmp_path / "out")
    assert not result.failures
    learned = [row for row in result.rows if row["kind"] == "ama"]
    assert [row["name"] for row in learned] == ["ama α=0.3", "ama α=0.6"]
    weights = learned[0]["learned"]["models"][0]["parameters"]["weight"][-1]["value"]
    assert sum(weights) / 2 == pytest.approx(0.3)
    page = next(path for path in write_outputs(study, result) if path.suffix == ".html").read_text()
    assert "ratios learned by" in page
    notes = sorted((tmp_path / "out" / "candidates").glob("*.ratios.yaml"))
    before = [note.stat().st_mtime_ns for note in notes]
    (tmp_path / "out" / "results.jsonl").unlink()
    again = run_study(study, tmp_path / "out")
    assert again.ran == 5
    assert [note.stat().st_mtime_ns for note in notes] == before
    assert [row["scores"] for row in again.rows] == [row["scores"] for row in result.rows]
    assert run_study(study, tmp_path / "out").ran == 0


def test_an_ama_candidate_scores_as_the_merge_that_its_recipe_makes(folder, tmp_path):
    import yaml

    study = tiny.study(folder, candidates=[{"name": "ama", "ama": {"alpha": 0.5, "blocks": 2, **AMA}}])
    row = run_study(study, tmp_path / "out").rows[-1]
    (tmp_path / "learned.yaml").write_text(yaml.safe_dump(row["learned"]))
    ready = tiny.study(folder, candidates=[{"name": "ready", "recipe": str(tmp_path / "learned.yaml")}])
    assert run_study(ready, tmp_path / "other").rows[-1]["scores"] == row["scores"]


def test_ama_candidates_take_the_rows_that_alignment_trained_on_where_none_are_named(folder):
    defaults = {"data": {"train": "pairs_validation.jsonl", "limit": 7, "max_length": 64, "eval": "pairs_test.jsonl"}}
    study = tiny.study(folder, align_defaults=defaults, candidates=[{"name": "ama", "ama": {"alpha": 0.5}}])
    data = expand(study)[-1].recipe["data"]
    assert data == {"train": str(folder / "pairs_validation.jsonl"), "limit": 7, "max_length": 64}


def test_an_ama_candidate_with_a_reward_is_known_by_what_the_reward_holds(folder, tmp_path):
    from mergetool.fingerprints import data_identity
    from mergetool.study.candidates.workspace import Workspace

    study = one(folder, ama={"alpha": 0.5, "reward": f"{tmp_path}/r.py:brief", **AMA})
    found = []
    for text in ("brief = len", "brief = max"):
        (tmp_path / "r.py").write_text(text)
        data_identity.cache_clear()  # read once in a process
        found.append(expand(study)[-1].identity(Workspace(study, tmp_path)))
    assert found[0] != found[1]
