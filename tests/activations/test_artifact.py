"""A calibration's file: what is read is what was written, and what does not fit is refused in one line."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergetool.activations import Calibration, measure
from mergetool.errors import CheckpointError, RecipeError
from mergetool.ops.projection import Rule
from tests.activations.models import live, sequences
from tests.ops.test_projection import dense

Q = "model.layers.0.self_attn.q_proj.weight"
K = "model.layers.0.self_attn.k_proj.weight"


@pytest.fixture(scope="module")
def made() -> Calibration:
    return measure(live("llama"), sequences(), rank=12, energy=1.0, facts={"model": {"source": "sft", "identity": "abc"}})


@pytest.fixture(scope="module")
def file(made: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "c.safetensors"
    made.save(path)
    return path


def test_what_is_read_is_what_was_saved(made: Calibration, file: Path) -> None:
    read = Calibration.load(file)
    assert (read.facts, read.sites, read.tensors) == (made.facts, made.sites, made.tensors)
    for key in made.sites:
        one, other = made.moments(key), read.moments(key)
        assert torch.equal(one.values, other.values)
        assert one.trace == other.trace
        assert one.vectors is None or torch.equal(one.vectors, other.vectors)


def test_the_same_calibration_is_the_same_bytes(made: Calibration, file: Path, tmp_path: Path) -> None:
    made.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["again"]


def test_a_pickled_one_is_read_from_its_file_again(file: Path) -> None:
    read = Calibration.load(file)
    again = pickle.loads(pickle.dumps(read))
    assert again.facts == read.facts
    assert torch.equal(again.moments(Q).values, read.moments(Q).values)
    assert copy.deepcopy(read) is read


def test_projectors_are_made_of_the_inputs_of_each_tensor(made: Calibration) -> None:
    rule, rng = Rule("soft", 3.0), torch.Generator().manual_seed(5)
    x = torch.randn(16, 32, generator=rng)
    p = made.projector(K, (16, 32), rule)
    assert (p.project_(x.clone()) - x.double() @ dense(p.columns[0], 32)).abs().max() < 1e-5
    tied = made.projector("lm_head.weight", (64, 32), rule)
    assert tied.columns[0] is not None
    assert tied.rows[0] is not None
    gain = made.projector("model.norm.weight", (32,), rule)
    ones = gain.project_(torch.ones(32, 1))
    assert ((ones > 0.5) & (ones < 0.95)).all()  # near 3/(1 + 3), as normalised inputs are near 1


def test_factors_are_shared_by_tensors_that_read_the_same(made: Calibration) -> None:
    held: dict = {}
    one, other = (made.projector(name, (rows, 32), Rule(), held) for name, rows in ((Q, 32), (K, 16)))
    assert one.columns[0] is other.columns[0]


def test_what_is_not_known_keeps_its_share(made: Calibration) -> None:
    x = torch.ones(4, 4)
    assert torch.equal(made.projector("new.weight", (4, 4), Rule("soft", 3.0)).project_(x.clone()), 0.75 * x)
    assert made.projector("new.weight", (4, 4), Rule("hard", rank=2)).identity
    assert made.projector(Q, (32, 32), Rule("soft", math.inf)).identity


def test_a_bias_reads_a_constant() -> None:
    found = measure(live("gpt2"), sequences())
    bias = "transformer.h.0.mlp.c_fc.bias"
    assert torch.equal(
        found.projector(bias, (128,), Rule("soft", 3.0)).project_(torch.ones(128, 1)), torch.full((128, 1), 0.75)
    )
    assert not found.projector(bias, (128,), Rule("hard", rank=1)).project_(torch.ones(128, 1)).any()


def test_other_shapes_other_models_and_greedy_rules_are_refused(made: Calibration) -> None:
    made.check([(Q, (32, 32)), ("new.bias", (7,))], Rule("hard", rank=12))
    with pytest.raises(CheckpointError, match=r"q_proj.weight \(\[32, 16\], there \[32, 32\]\)"):
        made.check([(Q, (32, 16))], Rule())
    with pytest.raises(CheckpointError, match="knows none of the tensors"):
        made.check([("h.0.weight", (32, 32))], Rule())
    with pytest.raises(RecipeError, match="keeps 12 eigenvectors of"):
        made.check([(Q, (32, 32))], Rule("hard", rank=13))
    with pytest.raises(RecipeError, match="strength is -1"):
        made.check([(Q, (32, 32))], Rule("soft", -1.0))
    made.check_model("abc", "sft")
    with pytest.raises(CheckpointError, match="is a calibration of sft, not of other"):
        made.check_model("abd", "other")


def test_files_that_are_none_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such calibration"):
        Calibration.load(tmp_path / "missing")
    cut = tmp_path / "cut"
    cut.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        Calibration.load(cut)
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(CheckpointError, match="is no calibration"):
        Calibration.load(tmp_path / "other")
    save_file({"a": torch.zeros(1)}, tmp_path / "bad", metadata={"mergetool_calibration": "{"})
    with pytest.raises(CheckpointError, match="its description is damaged"):
        Calibration.load(tmp_path / "bad")
