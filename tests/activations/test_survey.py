"""Which maps share an input, how their sums are cut into groups, and to which tensors the sums belong."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

from mergetool.activations.survey import Survey, Unit, survey
from tests.activations.models import CONFIGS, live, sequences


def readers(found: Survey) -> dict[str, str]:
    return {name: sides.get("columns", sides.get("rows", "")) for name, sides in found.sides.items()}


def test_maps_that_read_the_same_input_share_its_moments() -> None:
    of = readers(survey(live("llama"), sequences()[0]))
    layer = "model.layers.1"
    assert (
        of[f"{layer}.self_attn.k_proj.weight"] == of[f"{layer}.self_attn.v_proj.weight"] == f"{layer}.self_attn.q_proj.weight"
    )
    assert of[f"{layer}.mlp.up_proj.weight"] == f"{layer}.mlp.gate_proj.weight"
    assert of[f"{layer}.mlp.down_proj.weight"] == f"{layer}.mlp.down_proj.weight"
    assert of["model.layers.0.self_attn.q_proj.weight"] != of[f"{layer}.self_attn.q_proj.weight"]


def test_a_model_without_weights_has_the_same_maps() -> None:
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(CONFIGS["llama"]()).eval()
    there, here = survey(live("llama"), sequences()[0]), survey(empty, [0, 0])
    assert there.units == here.units
    assert there.sides == here.sides


def test_groups_hold_all_units_in_order_and_as_many_bytes_as_they_may() -> None:
    found = Survey(units=[Unit(f"t{i}", "columns", None, n, i) for i, n in enumerate((10, 10, 30, 10, 10, 10))])
    groups = found.groups(2 * 800)
    assert [u.order for group in groups for u in group] == list(range(6))
    assert [len(group) for group in groups] == [2, 1, 2, 1]  # the one of 7,200 bytes stands alone


def test_the_peak_is_that_of_the_largest_group() -> None:
    found = Survey(units=[Unit("a", "columns", None, 10, 0), Unit("b", "gain", None, 10, 1)])
    sums, pairs = 8 * 100 + 8 * 10, 4 * 11 * 3 + 4 * 11 * 3
    assert found.peak_bytes(rank=3) == sums + pairs
