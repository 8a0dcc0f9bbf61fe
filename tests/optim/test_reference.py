"""τ_s is found by name through wrappers and tied weights, read lazily, and refused where it does not fit."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergetool.errors import CheckpointError, RecipeError
from mergetool.optim import OnDARE, OnLinear, OnTIES, Reference
from mergetool.optim.names import canonical
from mergetool.optim.sharding import Shard
from tests.optim.scenes import deltas, parameters, run, values


def checkpoint(directory: Path, tensors: dict[str, torch.Tensor], **config) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file({n: t.contiguous() for n, t in tensors.items()}, directory / "model.safetensors")
    return directory


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    base = values(parameters())
    sft = {n: t + d for (n, t), d in zip(base.items(), deltas().values(), strict=True)}
    return checkpoint(tmp_path / "base", base), checkpoint(tmp_path / "sft", sft)


@pytest.mark.parametrize("storage", ["memory", "cpu", "mmap"])
@pytest.mark.parametrize(("cls", "density"), [(OnDARE, 0.01), (OnDARE, 0.4), (OnTIES, 0.01), (OnTIES, 0.4)])
def test_every_storage_merges_the_difference_of_the_checkpoints(pair, storage: str, cls: type, density: float) -> None:
    base, sft = (values(parameters()), None)
    tau = {n: (base[n] + d) - base[n] for n, d in deltas().items()}
    del sft
    ours, theirs = parameters(), parameters()
    reference = Reference.from_checkpoints(*pair, storage=storage)
    run(cls(ours, lr=1e-3, alpha=0.1, density=density, reference=reference), ours, 3)
    run(cls(theirs, lr=1e-3, alpha=0.1, density=density, reference=tau), theirs, 3)
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("storage", ["memory", "mmap"])
def test_a_base_in_fp8_is_subtracted_as_the_numbers_that_its_codes_stand_for(tmp_path: Path, storage: str) -> None:
    codes, scale, sft = torch.randn(32, 48).to(torch.float8_e4m3fn), torch.rand(2, 3) + 0.5, torch.randn(32, 48)
    quantised = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    tensors = {"m.weight": codes, "m.weight_scale_inv": scale}
    base = checkpoint(tmp_path / "base", tensors, quantization_config=quantised)
    reference = Reference.from_checkpoints(base, checkpoint(tmp_path / "sft", {"m.weight": sft}), storage=storage)
    theta = codes.float() * scale.repeat_interleave(16, 0).repeat_interleave(16, 1)
    ours, theirs = ([("m.weight", torch.nn.Parameter(sft.clone()))] for _ in range(2))
    for named, of in ((ours, reference), (theirs, {"m.weight": sft - theta})):
        named[0][1].grad = torch.linspace(-1, 1, sft.numel()).view_as(sft)
        OnDARE(named, lr=1e-3, alpha=0.1, density=0.4, reference=of).step()
    assert torch.equal(ours[0][1], theirs[0][1])
    assert not torch.equal(ours[0][1], sft)


def test_bf16_checkpoints_differ_exactly(tmp_path: Path) -> None:
    base = {"w": torch.randn(300).bfloat16()}
    sft = {"w": torch.randn(300).bfloat16()}
    reference = Reference.from_checkpoints(checkpoint(tmp_path / "b", base), checkpoint(tmp_path / "s", sft))
    whole = Shard((300,), (300,), (0,))
    got = reference.delta("w", whole, torch.device("cpu")).block(0, 300)
    assert torch.equal(got, sft["w"].float() - base["w"].float())


def test_a_rank_reads_its_own_slice_alone(pair) -> None:
    for storage in ("memory", "mmap"):
        reference = Reference.from_checkpoints(*pair, storage=storage)
        rows = Shard((700, 129), (100, 129), (200, 0))
        columns = Shard((700, 129), (700, 29), (0, 100))
        tau = (values(parameters())["embed.weight"] + deltas()["embed.weight"]) - values(parameters())["embed.weight"]
        for shard, expected in ((rows, tau[200:300]), (columns, tau[:, 100:])):
            delta = reference.delta("embed.weight", shard, torch.device("cpu"))
            assert delta.numel == expected.numel()
            assert torch.equal(delta.block(0, delta.numel), expected.flatten())
            index = torch.tensor([0, 5, 77, 2000])
            assert torch.equal(delta.take(index), expected.flatten()[index])


def test_names_are_found_through_wrappers() -> None:
    for name in (
        "module.a.weight",
        "_orig_mod.a.weight",
        "module._orig_mod.a.weight",
        "_fsdp_wrapped_module.a._checkpoint_wrapped_module.weight",
        "a._orig_mod.weight",
    ):
        assert canonical(name) == "a.weight"
    assert canonical("encoder.module.weight") == "encoder.module.weight"


def test_a_compiled_and_wrapped_model_takes_the_same_entries() -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Linear(50, 40)

    results = []
    for wrap in (lambda m: m, torch.compile):
        torch.manual_seed(0)
        model = wrap(Block())
        tau = {"a.weight": torch.ones(40, 50), "a.bias": torch.ones(40)}
        optimizer = OnDARE(model.named_parameters(), lr=1e-3, alpha=0.5, density=0.1, reference=tau)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_tied_weights_are_found_under_their_other_name(tmp_path: Path) -> None:
    base, sft = {"lm_head.weight": torch.zeros(6, 4)}, {"lm_head.weight": torch.ones(6, 4)}
    tied = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
    directories = checkpoint(tmp_path / "b", base, **tied), checkpoint(tmp_path / "s", sft, **tied)
    reference = Reference.from_checkpoints(*directories)
    p = torch.nn.Parameter(torch.zeros(6, 4))
    p.grad = torch.zeros_like(p)
    OnDARE([("model.embed_tokens.weight", p)], density=1.0, alpha=1.0, reference=reference).step()
    assert torch.equal(p, torch.ones(6, 4))
    both = [("model.embed_tokens.weight", p), ("lm_head.weight", torch.nn.Parameter(torch.zeros(6, 4)))]
    with pytest.raises(CheckpointError, match="tied"):
        OnDARE(both, alpha=1.0, reference=reference)


def test_names_and_shapes_that_do_not_match_are_refused_and_listed(tmp_path: Path, pair) -> None:
    base, sft = (values(parameters()) for _ in range(2))
    base["extra"] = torch.zeros(3)
    del base["norm.weight"]
    base["layer.weight"] = torch.zeros(3, 3)
    with pytest.raises(CheckpointError) as caught:
        Reference.from_checkpoints(checkpoint(tmp_path / "b", base), checkpoint(tmp_path / "s", sft))
    for name in ("extra", "norm.weight", "layer.weight"):
        assert name in str(caught.value)

    reference = Reference.from_checkpoints(*pair)
    head = torch.nn.Parameter(torch.zeros(7))
    with pytest.raises(CheckpointError, match=r"lacks value_head.*missing='zero'"):
        OnDARE([*parameters(), ("value_head", head)], alpha=0.1, reference=reference)
    with pytest.raises(CheckpointError, match=r"norm.weight \(\[7\], there \[65\]\)"):
        OnDARE([("norm.weight", head)], alpha=0.1, reference=reference)
    with pytest.raises(RecipeError, match=r"no names.*named_parameters"):
        OnDARE([head], alpha=0.1, reference=reference)


def test_a_missing_parameter_may_train_without_a_delta(pair) -> None:
    reference = Reference.from_checkpoints(*pair, missing="zero")
    head = torch.nn.Parameter(torch.zeros(7))
    head.grad = torch.ones(7)
    OnDARE([("value_head", head)], lr=1e-3, density=1.0, alpha=0.5, reference=reference).step()
    assert torch.allclose(head, torch.full((7,), -0.5e-3))


def test_names_may_come_from_the_model_where_groups_have_none(pair) -> None:
    named = parameters()
    groups = [{"params": [p for _, p in named[:2]], "weight_decay": 0.1}, {"params": [p for _, p in named[2:]]}]
    other = parameters()
    reference = Reference.from_checkpoints(*pair)
    ours = OnDARE(groups, lr=1e-3, alpha=0.1, density=0.1, reference=reference, names=named)
    pairs = [{"params": other[:2], "weight_decay": 0.1}, {"params": other[2:]}]
    theirs = OnDARE(pairs, lr=1e-3, alpha=0.1, density=0.1, reference=reference)
    run(ours, named, 2)
    run(theirs, other, 2)
    for (name, a), (_, b) in zip(named, other, strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(RecipeError, match="not among the `names`"):
        OnDARE([torch.nn.Parameter(torch.ones(2))], names=named)


def test_onlinear_takes_the_sft_side_of_two_checkpoints(pair) -> None:
    ours, theirs = parameters(), parameters()
    run(OnLinear(ours, lr=1e-3, alpha=0.1, reference=Reference.from_checkpoints(*pair)), ours, 2)
    run(OnLinear(theirs, lr=1e-3, alpha=0.1, reference=Reference.from_checkpoints(None, pair[1])), theirs, 2)
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        assert torch.equal(a, b), name


def test_references_can_be_copied_and_pickled(pair) -> None:
    whole = Shard((65,), (65,), (0,))
    for reference in (Reference(deltas()), Reference.from_checkpoints(*pair, storage="mmap")):
        expected = reference.delta("norm.weight", whole, torch.device("cpu")).block(0, 65)
        for again in (copy.deepcopy(reference), pickle.loads(pickle.dumps(reference))):
            assert torch.equal(again.delta("norm.weight", whole, torch.device("cpu")).block(0, 65), expected)


@pytest.fixture
def adapter(tmp_path: Path) -> tuple:
    """A tiny model with a LoRA adapter that serves as the SFT, saved; and the model that trains on from it."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter"


def test_lora_takes_tau_in_adapter_space(adapter) -> None:
    model, path = adapter
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    before = values(trained)
    reference = Reference.from_adapter(path)
    optimizer = OnDARE(trained, lr=1e-3, density=1.0, alpha=0.25, reference=reference)
    for _, p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert len(trained) == 4
    for name, p in trained:
        # τ_A = 0 and τ_B = B: the product moves by α·B·A, α times the SFT delta
        assert torch.allclose(p, before[name] * (1.25 if "lora_B" in name else 1.0)), name
    assert "q_proj" in trained[0][0]


def test_lora_on_a_full_reference_is_refused_with_what_to_do(adapter, tmp_path: Path) -> None:
    model, _ = adapter
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    full = {n: torch.zeros(2) for n in ("model.embed_tokens.weight",)}
    with pytest.raises(CheckpointError, match=r"LoRA adapters.*Reference.from_adapter"):
        OnDARE(trained, alpha=0.1, reference=full)
    odd = tmp_path / "odd"
    odd.mkdir()
    save_file({"base_model.model.a.lora_magnitude_vector.weight": torch.ones(2)}, odd / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="not a plain LoRA adapter"):
        Reference.from_adapter(odd)
