"""Everything that would stop a run is found from headers, first rows and TRL's config, before weights are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mergetool.align import align_recipe
from mergetool.align.check import check_align, fingerprint, merges_of
from mergetool.errors import CheckpointError, DataError, MergetoolError
from tests.align.tiny import make_model, recipe_text


def recipe(folder: Path, **parts: object):
    return align_recipe(recipe_text(folder, **parts))


def test_a_sound_recipe_gives_its_facts(triple) -> None:
    facts = check_align(recipe(triple, merging={"method": "ondare", "density": 0.5, "alpha": 1e-3}))
    assert facts["model"]["architecture"] == "LlamaForCausalLM"
    assert facts["model"]["dtype"] == "float32"
    assert facts["train"]["rows"] == "pairs of text"
    assert facts["options"] == {"density": 0.5, "alpha": 1e-3}
    json.dumps(facts)


def test_a_missing_model_a_missing_config_and_no_tokenizer_are_told(triple, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="none"):
        check_align(recipe(triple, sft_model=str(tmp_path / "none")))
    shutil.copytree(triple / "sft", tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer"):
        check_align(recipe(triple, sft_model=str(tmp_path / "bare")))
    (tmp_path / "bare" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        check_align(recipe(triple, sft_model=str(tmp_path / "bare")))


def test_two_widths_are_told_with_the_tensor_and_both_shapes(triple, tmp_path) -> None:
    make_model(tmp_path / "wide", seed=1, width=32)
    with pytest.raises(CheckpointError, match=r"wide: tensor 'model\..*' has shape \[.*\], but \[.*\] in .*sft"):
        check_align(recipe(triple, base_model=str(tmp_path / "wide")))


@pytest.mark.parametrize(("content", "says"), [("", "no rows"), ('{"prompt": "p", "rejected": "r"}\n', "row 1: no 'chosen'")])
def test_bad_preference_files_are_told(triple, tmp_path, content: str, says: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=says):
        check_align(recipe(triple, data={"train": str(path)}))


def test_the_fingerprint_follows_content_and_not_place(triple, tmp_path) -> None:
    shutil.copytree(triple, tmp_path / "moved")
    assert fingerprint(recipe(triple)) == fingerprint(recipe(tmp_path / "moved"))
    with (tmp_path / "moved" / "train.jsonl").open("a") as file:
        file.write('{"prompt": "p", "chosen": "yes", "rejected": "no"}\n')
    assert fingerprint(recipe(triple)) != fingerprint(recipe(tmp_path / "moved"))
    assert fingerprint(recipe(triple)) != fingerprint(recipe(triple, beta=0.2))


def stay(folder: Path, rows: str = "stay.jsonl", **more: object):
    merging = {"method": "replay", "rows": {"data": rows, **more}}
    return align_recipe(recipe_text(folder, merging=merging), folder)


def test_rows_that_should_stay_are_counted_and_a_missing_or_unusable_file_is_told(triple) -> None:
    assert check_align(stay(triple))["rows"] == {"of": ["stay.jsonl"], "usable": 10}
    assert check_align(stay(triple, limit=4))["rows"]["usable"] == 4
    json.dumps(check_align(stay(triple)))
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        check_align(stay(triple, rows="none.jsonl"))


def test_the_fingerprint_follows_what_the_rows_that_should_stay_hold(triple, tmp_path) -> None:
    shutil.copytree(triple, tmp_path / "moved")
    (tmp_path / "moved" / "stay.jsonl").rename(tmp_path / "moved" / "other.jsonl")
    assert fingerprint(stay(triple)) == fingerprint(stay(tmp_path / "moved", rows="other.jsonl"))
    with (tmp_path / "moved" / "other.jsonl").open("a") as file:
        file.write('{"prompt": "p", "completion": "yes"}\n')
    assert fingerprint(stay(triple)) != fingerprint(stay(tmp_path / "moved", rows="other.jsonl"))
    assert fingerprint(stay(triple)) != fingerprint(stay(triple, limit=4))


def test_the_number_of_merges_and_a_run_too_short_for_one(triple) -> None:
    def every(value: object):
        return recipe(triple, merging={"method": "ondare", "alpha": 1e-3, "every": value})

    assert merges_of(every(4), 10) == (4, 2)
    assert merges_of(every("total"), 10) == (10, 1)
    assert merges_of(recipe(triple), 10) == (1, 0)
    with pytest.raises(MergetoolError, match="more than the run's 10 steps"):
        merges_of(every(11), 10)
    with pytest.raises(MergetoolError, match="more than the run's 0 steps"):
        merges_of(every("total"), 0)


@pytest.mark.parametrize(
    ("merging", "training", "says"),
    [
        ({"method": "ondare", "density": 0.5, "alpha": 0.1, "every": 7}, {}, "7 is more than the run's 6 steps"),
        (
            {"method": "ondare", "density": 0.5, "alpha": 0.1},
            {"max_steps": -1, "num_train_epochs": 0},
            "more than the run's 0 steps",
        ),
        ({"method": "bema", "since": 4, "every": 3}, {}, "would be at step 7, and the run has 6"),
    ],
)
def test_a_run_too_short_for_its_method_is_found_where_its_length_is_known(triple, merging, training, says) -> None:
    values = recipe_text(triple, merging=merging)
    values["training"] |= training
    with pytest.raises(MergetoolError, match=says):
        check_align(align_recipe(values, triple))


def test_null_reports_to_nobody(triple) -> None:
    values = recipe_text(triple)
    values["training"]["report_to"] = None
    check_align(align_recipe(values, triple))
