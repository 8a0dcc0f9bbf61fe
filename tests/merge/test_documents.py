"""A file of several recipes is merges of merges: each document's model stands where its name is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mergetool.errors import RecipeError
from mergetool.merge import merge_to_directory, plan_merge
from mergetool.merge.documents import steps_of
from mergetool.merge.run import merge
from mergetool.recipe_kinds import check
from tests.helpers import write_triple


def linear(*models: str, **more: object) -> dict:
    entries = [{"model": model, "parameters": {"weight": 0.5}} for model in models]
    return {"merge_method": "linear", "models": entries, "dtype": "float32", **more}


def write(root: Path, *documents: dict) -> Path:
    (root / "r.yaml").write_text(
        "# merges of merges\n" + "---\n".join(map(yaml.safe_dump, documents)) + "---\n" * (len(documents) > 1)
    )
    return root / "r.yaml"


def test_the_result_is_that_of_the_merges_made_by_hand(tmp_path: Path) -> None:
    write_triple(tmp_path)
    file = write(
        tmp_path, linear("first", "base", name="second"), linear("second", "rlhf"), linear("sft", "rlhf", name="first")
    )
    manifest = merge(file, tmp_path / "out")
    base, sft, rlhf, out = (load_file(tmp_path / n / "model.safetensors") for n in ("base", "sft", "rlhf", "out"))
    for name, tensor in out.items():
        torch.testing.assert_close(tensor, sft[name] / 8 + rlhf[name] / 8 + base[name] / 4 + rlhf[name] / 2)
    assert sorted(p.name for p in (tmp_path / "out.steps").iterdir()) == ["first", "second"]
    assert str(tmp_path / "out.steps" / "second") in manifest["distances"]
    times = [p.stat().st_mtime_ns for p in sorted(tmp_path.glob("out*/**/model.safetensors"))]
    assert merge(file, tmp_path / "out") == manifest
    assert [p.stat().st_mtime_ns for p in sorted(tmp_path.glob("out*/**/model.safetensors"))] == times


def test_where_all_have_names_each_is_a_directory_of_the_result(tmp_path: Path) -> None:
    write_triple(tmp_path)
    steps = steps_of(write(tmp_path, linear("a", "base", name="b"), linear("sft", "rlhf", name="a")), tmp_path / "out")
    assert [step.out for step in steps] == [tmp_path / "out" / "a", tmp_path / "out" / "b"]
    assert steps[1].recipe.models[0].model == str(tmp_path / "out" / "a")
    for step in steps:
        merge_to_directory(plan_merge(step.recipe), step.out)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "b"]


def test_one_document_is_one_merge_of_that_name_or_not(tmp_path: Path) -> None:
    write_triple(tmp_path)
    (step,) = steps_of(write(tmp_path, linear("sft", "rlhf", name="x")), tmp_path / "out")
    assert (step.out, step.recipe.name, step.needs) == (tmp_path / "out", "x", ())


def test_names_stand_wherever_a_model_does(tmp_path: Path) -> None:
    content = linear("sft+a", base_model="a", tokenizer={"source": "a", "tokens": {"w": {"source": "a"}}})
    content["models"][0]["relative_to"] = "a"
    step = steps_of(write(tmp_path, linear("sft", name="a"), content), tmp_path / "out")[1]
    made = str(tmp_path / "out.steps" / "a")
    entry = step.recipe.models[0]
    assert (entry.model, entry.relative_to, step.recipe.base_model) == (f"{tmp_path / 'sft'}+{made}", made, made)
    assert step.recipe.tokenizer is not None
    assert step.recipe.tokenizer["source"] == step.recipe.tokenizer["tokens"]["w"]["source"] == made


@pytest.mark.parametrize(
    ("documents", "says"),
    [
        ((linear("b", name="a"), linear("a", name="b"), linear("a")), "a, b, the result need one another"),
        ((linear("x", name="a"), linear("y", name="a")), "2 documents have the name 'a'"),
        ((linear("x"), linear("y")), "2 documents have no name"),
        ((linear("x", name="../a"), linear("y")), "is no name of a directory"),
        ((linear("x", name="a"), {**linear("y"), "modls": []}), "the document without a name: .*did you mean 'models'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, documents: tuple[dict, ...], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        steps_of(write(tmp_path, *documents), tmp_path / "out")


def test_check_reads_all_and_plans_what_it_can(tmp_path: Path) -> None:
    write_triple(tmp_path)
    found = check(write(tmp_path, linear("sft", "rlhf", name="a"), linear("a", "base")))
    assert found["kind"] == "merge"
    first, last = found["documents"]
    assert (first["document"], first["method"]) == ("a", "linear")
    assert last == {"document": None, "needs": ["a"]}
