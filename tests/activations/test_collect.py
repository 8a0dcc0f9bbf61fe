"""Second moments of live models, against the plainest way to take them."""

from __future__ import annotations

import pytest
import torch

from mergetool.activations import Calibration, measure
from mergetool.activations.collect import batches
from tests.activations.models import VOCABULARY, inputs_of, live, sequences


def whole(found: Calibration, key: str) -> torch.Tensor:
    """C of a site, all of whose eigenpairs were kept."""
    known = found.moments(key)
    if known.vectors is None:
        return torch.diag(known.values.double())
    return (known.vectors.double() * known.values.double()) @ known.vectors.double().T


def second_moment(x: torch.Tensor) -> torch.Tensor:
    return x.T @ x / x.shape[0]


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a - b).norm()) < 1e-5 * float(b.norm())


@pytest.mark.parametrize(
    ("family", "module"),
    [
        ("llama", "model.layers.1.self_attn.q_proj"), ("llama", "model.layers.0.mlp.down_proj"), ("llama", "lm_head"),
        ("gpt2", "transformer.h.1.mlp.c_proj"), ("gemma2", "model.layers.0.self_attn.o_proj"),
        ("qwen3_moe", "model.layers.1.mlp.gate"),
    ],
)  # fmt: skip
def test_a_linear_map_has_the_second_moment_of_its_inputs(family: str, module: str) -> None:
    model, rows = live(family), sequences()
    found = measure(model, rows, rank=1000, energy=1.0)
    one = found.tensors[f"{module}.weight"]
    key = (one.columns or one.rows)[0]
    assert key is not None
    x = inputs_of(model, module, rows)
    assert close(whole(found, key), second_moment(x))
    assert found.sites[key].count == x.shape[0] == sum(map(len, rows))
    assert found.sites[key].trace == pytest.approx(float(x.square().sum() / x.shape[0]), rel=1e-5)


def test_a_norm_has_the_squares_of_the_normalised_input() -> None:
    model, rows = live("llama"), sequences()
    x = inputs_of(model, "model.norm", rows)
    normed = x / (x.square().mean(1, keepdim=True) + model.config.rms_norm_eps).sqrt()
    assert close(whole(measure(model, rows), "model.norm.weight").diagonal(), normed.square().mean(0))


def test_an_embedding_has_the_frequencies_of_its_tokens() -> None:
    rows = sequences()
    ids = torch.tensor([i for row in rows for i in row])
    found = measure(live("llama"), rows)
    frequency = torch.bincount(ids, minlength=VOCABULARY).double() / ids.numel()
    assert close(whole(found, "model.embed_tokens.weight:tokens").diagonal(), frequency)


def test_an_expert_has_the_moment_of_the_tokens_routed_to_it() -> None:
    model, rows, inputs = live("qwen3_moe"), sequences(), dict[int, list[torch.Tensor]]()

    def routed(_: object, args: tuple) -> None:
        for e in range(4):
            inputs.setdefault(e, []).append(args[0][(args[1] == e).any(-1)])

    hook = model.model.layers[1].mlp.experts.register_forward_pre_hook(routed)
    with torch.no_grad():
        for row in rows:
            model(input_ids=torch.tensor([row]))
    hook.remove()
    found = measure(model, rows, rank=1000, energy=1.0)
    for e, parts in inputs.items():
        x = torch.cat(parts).double()
        key = f"model.layers.1.mlp.experts.gate_up_proj[{e}]"
        assert found.sites[key].count == x.shape[0]
        assert close(whole(found, key), second_moment(x))


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "gpt2"])
def test_neither_batches_nor_groups_change_it(family: str) -> None:
    model, rows = live(family), sequences()
    one = measure(model, rows, rank=1000, energy=1.0)
    for options in ({"batch_size": 1}, {"group_bytes": 20_000}, {"group_bytes": 1}):
        other = measure(model, rows, rank=1000, energy=1.0, **options)
        assert other.tensors == one.tensors
        assert list(other.sites) == list(one.sites)
        for key in one.sites:
            assert close(whole(other, key), whole(one, key)), key


def test_fewest_eigenpairs_for_an_energy_at_most_rank() -> None:
    model, rows = live("llama"), sequences()
    full = measure(model, rows, rank=1000, energy=1.0).moments("model.layers.0.mlp.down_proj.weight")
    part = measure(model, rows, rank=1000, energy=0.9)
    site = part.sites["model.layers.0.mlp.down_proj.weight"]
    shares = torch.cumsum(full.values.double(), 0) / full.trace
    assert site.rank == int((shares < 0.9).sum()) + 1
    assert site.energy == pytest.approx(float(shares[site.rank - 1]), rel=1e-5)
    few = measure(model, rows, rank=2, energy=0.9)
    assert {s.rank for s in few.sites.values() if not s.diagonal} == {2}


def test_batches_hold_rows_of_one_length() -> None:
    rows = sequences()
    found = list(batches(rows, 2))
    assert sorted(at for batch in found for at in batch) == list(range(len(rows)))
    assert all(len({len(rows[at]) for at in batch}) == 1 and len(batch) <= 2 for batch in found)


def test_logits_are_not_made() -> None:
    model, rows, asked = live("llama"), sequences(), []
    # a hook that comes after the head's product would see logits
    hook = model.lm_head.register_forward_hook(lambda *_: asked.append(1))
    measure(model, rows)
    hook.remove()
    assert len(asked) == 1  # of the survey's few tokens
