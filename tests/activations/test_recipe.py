"""`calibration:` of a recipe: a file or rows, known by content, made once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from mergetool.activations import Calibration
from mergetool.activations.recipe import CalibrationEntry
from mergetool.errors import CheckpointError, DataError, RecipeError
from mergetool.ops.projection import Rule
from tests.helpers import CONFIG, random_weights, shapes, write_checkpoint


def entry(given: object) -> CalibrationEntry:
    return CalibrationEntry.model_validate(given)


def rows(path: Path, *texts: str) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "sft", random_weights(0))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MERGETOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "calibrations"


def test_what_is_written_is_read_as_the_same() -> None:
    for given in ("c.safetensors", {"data": ["a.jsonl"], "limit": 7}, {"data": ["a.jsonl", "b.jsonl"]}):
        assert entry(given).written() == given
    assert entry({"data": "a.jsonl"}).written() == {"data": ["a.jsonl"]}


@pytest.mark.parametrize(
    "given", [{}, {"data": []}, {"file": "a", "data": ["b"]}, {"data": ["a"], "rank": 0}, {"rows": "a"}, 3]
)
def test_neither_nor_both_nor_anything_else(given: object) -> None:
    with pytest.raises(ValidationError):
        entry(given)


def test_paths_start_from_the_recipe_and_identity_is_content(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    rows(tmp_path / "a.jsonl", "w1 w2"), rows(tmp_path / "elsewhere" / "b.jsonl", "w1 w2"), rows(tmp_path / "c.jsonl", "w3")
    one, same, other = (entry({"data": name}).resolved(tmp_path) for name in ("a.jsonl", "elsewhere/b.jsonl", "c.jsonl"))
    assert one.data == [str(tmp_path / "a.jsonl")]
    assert one.identity() == same.identity() != other.identity()
    assert one.identity() != entry({"data": "a.jsonl", "limit": 1}).resolved(tmp_path).identity()


def test_it_is_made_once_and_a_damaged_one_is_made_anew(model: Path, tmp_path: Path, cache: Path) -> None:
    asked = entry({"data": str(rows(tmp_path / "a.jsonl", "w1 w2 w3", "w4 w5")), "rank": 4})
    ticks: list[int] = []
    first = asked.obtain(model, lambda done, total, what: ticks.append(done))
    assert ticks
    assert first.facts["rank"] == 4
    ticks.clear()
    again = asked.obtain(model, lambda done, total, what: ticks.append(done))
    assert not ticks
    assert again.sites == first.sites
    (kept,) = cache.glob("*.safetensors")
    kept.write_bytes(b"damaged")
    assert asked.obtain(model).sites == first.sites
    assert sorted(p.suffix for p in cache.iterdir()) == [".safetensors"]


def test_a_file_is_taken_for_its_own_model_alone(model: Path, tmp_path: Path, cache: Path) -> None:
    made = entry({"data": str(rows(tmp_path / "a.jsonl", "w1 w2"))}).obtain(model)
    assert made.path is not None
    opened = entry(str(made.path)).obtain(model)
    assert isinstance(opened, Calibration)
    other = write_checkpoint(tmp_path / "other", random_weights(3))
    with pytest.raises(CheckpointError, match="is a calibration of sft, not of"):
        entry(str(made.path)).obtain(other)


def test_the_check_reads_no_weights(model: Path, tmp_path: Path, cache: Path) -> None:
    parameters = list(shapes(CONFIG).items())
    entry({"data": str(rows(tmp_path / "a.jsonl", "w1"))}).check(parameters, [Rule()])
    with pytest.raises(DataError, match="no such file"):
        entry({"data": str(tmp_path / "none.jsonl")}).check(parameters, [Rule()])
    made = entry({"data": str(tmp_path / "a.jsonl"), "rank": 2}).obtain(model)
    entry(str(made.path)).check(parameters, [Rule()])
    with pytest.raises(RecipeError, match="the rule takes away more"):
        entry(str(made.path)).check(parameters, [Rule("hard", rank=30)])
    with pytest.raises(CheckpointError, match="knows none of the tensors"):
        entry(str(made.path)).check([("other", (3, 3))], [Rule()])
