"""OnNullSpace: AdamW where P = I, the offline operator where K = T, and outputs that stay as they are."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from peft import LoraConfig, get_peft_model

from mergetool.activations import Calibration, measure
from mergetool.errors import CheckpointError, RecipeError
from mergetool.ops.projection import Rule
from mergetool.optim import OnDARE, OnNullSpace
from mergetool.optim.blockwise import merge_blocks
from mergetool.optim.deltas import since
from mergetool.optim.job import Job, Merge
from mergetool.optim.operators import operator
from mergetool.optim.parts import Binding
from mergetool.optim.sharding import Shard
from tests.activations.models import live, sequences
from tests.optim.calibrations import calibration
from tests.optim.scenes import SHAPES, gradients, parameters, run, values

LR = 1e-3
SOFT, HARD = {"strength": 2.0}, {"kind": "hard", "threshold": 0.01}
Weights = dict[str, torch.Tensor]


def offline(start: Weights, end: Weights, found: Calibration, rule: Rule, decay: float = 1.0) -> Weights:
    """D·θ_s + F_P(θ_p − D·θ_s), tensor by tensor."""
    made = {}
    for name, s in start.items():
        p = found.projector(name, tuple(s.shape), rule)
        delta = (end[name] - s * decay if decay != 1.0 else end[name] - s).reshape(-1, p.width)
        swept = p.sweep() if p.sweeps else []
        if swept:
            p.sweep_(swept, delta)
        total = p.project_(delta, 0, swept).view(s.shape)
        made[name] = s + (total.add_(s, alpha=decay - 1) if decay != 1.0 else total)
    return made


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_strength_infinity_is_adamw_bit_for_bit(every: int, weight_decay: float) -> None:
    ours, theirs = parameters(), parameters()
    run(OnNullSpace(ours, LR, calibration=calibration(), strength=math.inf, every=every, weight_decay=weight_decay), ours, 7)
    run(torch.optim.AdamW([p for _, p in theirs], lr=LR, weight_decay=weight_decay, fused=True), theirs, 7)
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("settings", [SOFT, HARD])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_one_merge_at_the_end_is_the_offline_merge_bit_for_bit(settings: dict, weight_decay: float) -> None:
    found, start, adam, ours = calibration(), values(parameters()), parameters(), parameters()
    run(torch.optim.AdamW([p for _, p in adam], lr=LR, weight_decay=weight_decay, fused=True), adam, 6)
    run(OnNullSpace(ours, LR, calibration=found, every=6, weight_decay=weight_decay, **settings), ours, 6)
    expected = offline(start, values(adam), found, Rule(**settings), (1 - LR * weight_decay) ** 6)
    for name, p in ours:
        if weight_decay:
            assert (p - expected[name]).abs().max() < 1e-8, name
        else:
            assert torch.equal(p, expected[name]), name


def test_every_step_loses_what_the_inputs_would_see() -> None:
    found, adam, ours = calibration(), parameters(), parameters()
    for step in range(3):
        before = values(ours)
        run(optimizer := OnNullSpace(ours, LR, calibration=found, **SOFT), ours, 1, first=step)
        for name, p in adam:
            p.data.copy_(before[name])
        run(torch.optim.AdamW([p for _, p in adam], lr=LR, weight_decay=0.0, fused=True), adam, 1, first=step)
        expected = offline(before, values(adam), found, Rule(**SOFT))
        for name, q in ours:
            assert (q - expected[name]).abs().max() < 1e-8, name
    assert optimizer.merged.merges == 1


@pytest.mark.parametrize("every", [1, 2])
def test_hard_steps_leave_the_outputs_of_the_kept_span(every: int) -> None:
    found, ours = calibration(), parameters()
    known = found.moments("layer.weight")
    assert known.vectors is not None
    x = known.vectors[:, :5]
    before = values(ours)["layer.weight"]
    run(OnNullSpace(ours, LR, calibration=found, kind="hard", rank=5, every=every), ours, 6)
    after = values(ours)["layer.weight"]
    assert (after - before).abs().max() > LR
    assert ((after - before) @ x).abs().max() < 1e-6


def test_the_gradient_may_be_projected_in_place_of_the_update() -> None:
    found, ours, theirs, rule = calibration(), parameters(), parameters(), Rule(**SOFT)
    run(OnNullSpace(ours, LR, calibration=found, project="gradient", **SOFT), ours, 3)
    adam = torch.optim.AdamW([p for _, p in theirs], lr=LR, weight_decay=0.0, fused=True)
    for step in range(3):
        for name, p in theirs:
            one = found.projector(name, SHAPES[name], rule)
            p.grad = one.project_(gradients(step)[name].reshape(-1, one.width)).view(p.shape)
        adam.step()
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("extra", [SOFT, HARD | {"every": 3, "weight_decay": 0.1}, SOFT | {"project": "gradient"}])
def test_n_steps_resumed_for_n_more_are_2n_steps_bit_for_bit(extra: dict, dtype: torch.dtype) -> None:
    settings = {"lr": LR, "calibration": calibration()} | extra
    whole, half, rest = (parameters(seed, dtype) for seed in (0, 0, 99))
    run(OnNullSpace(whole, **settings), whole, 8)
    run(first := OnNullSpace(half, **settings), half, 4)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    for (_, p), (_, q) in zip(rest, half, strict=True):
        p.data.copy_(q)
    second = OnNullSpace(rest, **settings)
    second.load_state_dict(torch.load(file, weights_only=True))
    run(second, rest, 4, first=4)
    for (name, a), (_, b) in zip(whole, rest, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_on_as_the_original_does(how) -> None:
    ours = parameters()
    optimizer = OnNullSpace(ours, LR, calibration=calibration(), **SOFT)
    run(optimizer, ours, 2)
    other = how(optimizer)
    theirs = list(zip([n for n, _ in ours], other.param_groups[0]["params"], strict=True))
    run(optimizer, ours, 2, first=2)
    run(other, theirs, 2, first=2)
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        assert a is not b
        assert torch.equal(a, b), name


def test_a_rank_that_holds_some_rows_comes_to_the_bits_of_the_whole() -> None:
    found, shape = calibration(), SHAPES["embed.weight"]
    theta, anchor = (values(parameters(seed))["embed.weight"] for seed in (0, 1))
    merge = Merge(operator("null_space"), 1.0, 0.0, "none", "resample", "weighted", None, 0, 0, False)
    projector = found.projector("embed.weight", shape, Rule(**SOFT))

    def merged(first: int, count: int) -> torch.Tensor:
        here, there = (t[first : first + count].clone().view(-1) for t in (theta, anchor))
        binding = Binding("embed.weight", Shard(shape, (count, shape[1]), (first, 0)), projector=projector)
        merge_blocks(Job(here, there, 1.0, since(here, there, 1.0), merge, binding))
        return here.view(count, shape[1])

    whole = merged(0, shape[0])
    for first, count in ((0, 350), (350, 350), (1, 3), (699, 1)):
        assert torch.equal(merged(first, count), whole[first : first + count])


def test_weights_stored_by_input_are_projected_by_rows() -> None:
    shapes = {"layer.weight": (65, 300)}
    found, rng = calibration(shapes, transposed=True), torch.Generator().manual_seed(3)
    p = torch.nn.Parameter(torch.randn(65, 300, generator=rng))
    start, known = p.detach().clone(), found.moments("layer.weight")
    optimizer = OnNullSpace([("layer.weight", p)], LR, calibration=found, kind="hard", rank=9)
    for _ in range(3):
        p.grad = torch.randn(65, 300, generator=rng)
        optimizer.step()
    assert known.vectors is not None
    assert (known.vectors[:, :9].T @ (p.detach() - start)).abs().max() < 1e-6
    assert (p.detach() - start).abs().max() > LR


def test_lora_adapters_never_leave_the_null_space() -> None:
    torch.manual_seed(0)
    model, rows = live("llama"), sequences()
    found = measure(model, rows, rank=1000, energy=1.0)
    ids = torch.tensor([rows[0]])
    before = model(input_ids=ids).logits
    peft = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    trained = [(n, p) for n, p in peft.named_parameters() if p.requires_grad]
    optimizer = OnNullSpace(trained, 1e-2, calibration=found, kind="hard", rank=20)
    for step in range(4):
        optimizer.zero_grad()
        peft(input_ids=ids, labels=ids).loss.backward()
        if step == 0:
            optimizer.param_groups[0]["lr"] = 0.0
        optimizer.step()
        if step == 0:
            assert torch.allclose(peft(input_ids=ids).logits, before, atol=1e-6)
        optimizer.param_groups[0]["lr"] = 1e-2
    for name, p in trained:
        if "lora_A" in name:
            site = name.removeprefix("base_model.model.").replace(".lora_A.default", "")
            vectors = found.moments(found.tensors[site].columns[0] or "").vectors
            assert vectors is not None
            assert (p.detach() @ vectors[:, :20]).abs().max() < 1e-5
            assert p.detach().abs().max() > 1e-2
        else:
            assert p.detach().abs().max() > 1e-3


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(RecipeError, match="project is 'grad'"):
        OnNullSpace(parameters(), LR, calibration=calibration(), project="grad")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="project is gradient and every is 2"):
        OnNullSpace(parameters(), LR, calibration=calibration(), project="gradient", every=2)
    with pytest.raises(RecipeError, match="kind hard has no limit"):
        OnNullSpace(parameters(), LR, calibration=calibration(), kind="hard")
    with pytest.raises(RecipeError, match="have no names"):
        OnNullSpace([p for _, p in parameters()], LR, calibration=calibration())
    with pytest.raises(CheckpointError, match=r"does not fit: layer\.weight"):
        OnNullSpace(parameters(), LR, calibration=calibration(SHAPES | {"layer.weight": (64, 64)}))
    with pytest.raises(CheckpointError, match="knows none of the tensors"):
        OnNullSpace(parameters(), LR, calibration=calibration({"other.weight": (3, 3)}))
    with pytest.raises(CheckpointError, match="no such calibration"):
        OnNullSpace(parameters(), LR, calibration="nowhere.safetensors")


def test_its_state_goes_on_in_another_order_and_in_no_other_method() -> None:
    ours = parameters()
    optimizer = OnNullSpace(ours, LR, calibration=calibration(), every=3, **SOFT)
    run(optimizer, ours, 4)
    state = copy.deepcopy(optimizer.state_dict())
    again = [(name, torch.nn.Parameter(p.detach().clone())) for name, p in ours]
    other = OnNullSpace(again[::-1], LR, calibration=calibration(), every=3, **SOFT)
    other.load_state_dict(state)
    run(optimizer, ours, 4, first=4)
    run(other, again, 4, first=4)
    for (name, p), (_, q) in zip(ours, again, strict=True):
        assert torch.equal(p, q), name
    with pytest.raises(CheckpointError, match="method 'null_space'"):
        OnDARE(parameters(), density=1.0).load_state_dict(state)
    plain = parameters()
    with pytest.raises(RecipeError, match="OnNullSpace has no density"):
        OnNullSpace(plain, LR, calibration=calibration()).load_state_dict(OnDARE(plain, density=0.5).state_dict())


def test_a_parameter_without_a_gradient_at_the_kth_step_is_projected_with_the_others() -> None:
    found, ours = calibration(), parameters()
    start = values(ours)
    optimizer = OnNullSpace(ours, LR, calibration=found, every=3, **HARD)
    for step in range(3):
        for name, p in ours:
            p.grad = None if step == 2 and name == "embed.weight" else gradients(step)[name]
        optimizer.step()
    adam = parameters()
    run(torch.optim.AdamW([p for _, p in adam], lr=LR, weight_decay=0.0, fused=True), adam, 2)
    rule = Rule("hard", threshold=0.01)
    expected = offline({"embed.weight": start["embed.weight"]}, values(adam), found, rule)["embed.weight"]
    torch.testing.assert_close(dict(ours)["embed.weight"].detach(), expected, rtol=0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_steps_are_those_made_block_by_block(dtype: torch.dtype) -> None:
    """Tensors large enough for a pass of their own, among them one whose rows are projected too, and small ones."""
    shapes = {"embed.weight": (1_200, 96), "layer.weight": (700, 300), "out.weight": (40, 300), "norm.weight": (96,)}
    found, made = calibration(shapes, rank=40), {}
    for choice in (False, True):
        rng = torch.Generator().manual_seed(0)
        made[choice] = [(n, torch.nn.Parameter((torch.randn(s, generator=rng) * 0.02).to(dtype))) for n, s in shapes.items()]
        optimizer = OnNullSpace(made[choice], LR, calibration=found, weight_decay=0.1, compile=choice)
        for _ in range(3):
            for _, p in made[choice]:
                p.grad = (torch.randn(p.shape, generator=rng) * 1e-3).to(dtype)
            optimizer.step()
    for (name, a), (_, b) in zip(made[True], made[False], strict=True):
        apart = (a.detach() - b.detach()).abs().float()
        # Δθ agrees to a rounding, so a sum may fall on the other side of its uniform number now and then
        assert apart.max() <= (2e-8 if dtype == torch.float32 else 2**-7 * float(b.detach().abs().max())), name
        assert dtype == torch.float32 or (apart > 0).float().mean() < 0.02, name
