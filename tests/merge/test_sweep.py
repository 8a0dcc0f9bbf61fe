"""Several merges in one reading give what the merges one by one give."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from mergetool.checkpoint.reader import Reader
from mergetool.errors import RecipeError
from mergetool.merge import MergeRecipe, merge_to_directories, merge_to_directory, plan_merge
from mergetool.merge.sweep import expand
from tests.helpers import write_triple


@pytest.fixture
def recipe(tmp_path: Path) -> MergeRecipe:
    triple = write_triple(tmp_path / "in")
    models = [{"model": str(triple[m]), "parameters": {"weight": 0.5}} for m in ("sft", "rlhf")]
    return MergeRecipe(merge_method="dare_ties", base_model=str(triple["base"]), models=models, parameters={"density": 0.5})


def digest(directory: Path) -> str:
    return sha256((directory / "model.safetensors").read_bytes()).hexdigest()


def test_a_sweep_reads_each_block_once_and_gives_what_single_merges_give(
    recipe: MergeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = ["models[1].weight=0.3,0.9", "merge_method=task_arithmetic,linear"]
    plain = recipe.model_copy(update={"parameters": {}})
    labels, recipes = zip(*expand(plain, sweep), strict=True)
    assert labels[0] == "models[1].weight=0.3,merge_method=task_arithmetic"
    plans = [plan_merge(r) for r in recipes]
    reads: list[tuple] = []
    real = Reader.block

    def block(self: Reader, name: str, start: int, stop: int):
        reads.append((id(self), name, start))
        return real(self, name, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "block", block)
        merge_to_directories(plans, [tmp_path / "all" / label for label in labels])
    assert len(reads) == len(set(reads)) == 3 * len(plans[0].tensors)
    for label, plan in zip(labels, plans, strict=True):
        merge_to_directory(plan, tmp_path / "one" / label)
        assert digest(tmp_path / "one" / label) == digest(tmp_path / "all" / label)


def test_a_sweep_over_density_and_seed_differs_in_every_point(recipe: MergeRecipe, tmp_path: Path) -> None:
    labels, recipes = zip(*expand(recipe, ["density=0.2,0.8", "seed=0,1"]), strict=True)
    manifests = merge_to_directories([plan_merge(r) for r in recipes], [tmp_path / label for label in labels])
    assert len({digest(tmp_path / label) for label in labels}) == 4
    kept = [next(iter(m["kept"].values())) for m in manifests]
    assert [round(k, 1) for k in kept] == [0.2, 0.2, 0.8, 0.8]


def test_a_finished_point_of_a_sweep_is_not_done_again(recipe: MergeRecipe, tmp_path: Path) -> None:
    _, recipes = zip(*expand(recipe, ["density=0.2,0.8"]), strict=True)
    plans = [plan_merge(r) for r in recipes]
    merge_to_directory(plans[0], tmp_path / "a")
    before = (tmp_path / "a").stat().st_mtime_ns
    merge_to_directories(plans, [tmp_path / "a", tmp_path / "b"])
    assert (tmp_path / "a").stat().st_mtime_ns == before
    assert (tmp_path / "b").is_dir()


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        (["density"], "KEY=V1,V2"),
        (["density="], "KEY=V1,V2"),
        (["models[2].weight=1"], "2 models"),
        (["base_model=x"], "cannot be swept"),
        (["density=0.1", "density=0.2"], "twice"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(recipe: MergeRecipe, sweep: list[str], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        expand(recipe, sweep)
