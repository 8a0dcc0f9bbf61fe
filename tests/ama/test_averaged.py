"""The live average is the merge, and its gradients are autograd's, one number a block."""

from __future__ import annotations

import pytest
import torch

from mergetool.ama.averaged import AveragedModel
from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.reader import Reader
from mergetool.data.tokens import Coded
from mergetool.errors import CheckpointError
from mergetool.evaluate.logprobs import token_log_probs
from mergetool.hub.loading import load_model
from mergetool.merge.parts import parts_of
from tests.evaluate import tiny

ROWS = [Coded(tuple(range(5, 30)), 8), Coded(tuple(range(40, 52)), 3)]
SHARES = [0.3, 0.9, 0.55]


def averaged(pair, **places) -> AveragedModel:
    readers = [Reader(read_layout(pair / name)) for name in ("sft", "rlhf")]
    return AveragedModel(load_model(pair / "rlhf", "cpu"), *readers, parts_of(readers[0].layout, 3, places))


def loss(model) -> torch.Tensor:
    return -token_log_probs(model, ROWS, 0)[0].sum()


@pytest.mark.parametrize(
    "places", [{}, {"embeddings": "sft", "final_norm": "rlhf", "lm_head": "average"}], ids=["blocks", "placed"]
)
def test_the_gradient_of_each_ratio_is_that_of_autograd_through_the_average(pair, places) -> None:
    live = averaged(pair, **places)
    live.put(SHARES, 0.5)
    with live.gradients() as found:
        loss(live.model).backward()
    # the same, written out: the average as a function of the ratios, differentiated as a whole
    sft, rlhf = (dict(load_model(pair / name, "cpu").named_parameters()) for name in ("sft", "rlhf"))
    alpha = torch.tensor(SHARES, requires_grad=True)
    share = {name: live.parts.of(name) for name in sft}
    fixed = {"sft": 1.0, "rlhf": 0.0, "average": 0.5}
    mixed = {
        name: (a := alpha[at] if isinstance(at, int) else fixed[at]) * sft[name] + (1 - a) * rlhf[name]
        for name, at in share.items()
    }
    plain = load_model(pair / "rlhf", "cpu")
    logits = [torch.func.functional_call(plain, mixed, (torch.tensor([row.ids]),)).logits[0].log_softmax(-1) for row in ROWS]
    total = sum(
        out[at - 1, row.ids[at]] for out, row in zip(logits, ROWS, strict=True) for at in range(row.start, len(row.ids))
    )
    (-total).backward()
    assert found == pytest.approx(alpha.grad.tolist(), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_no_two_gradients_are_ever_there_at_once_and_none_stays(tmp_path, tied) -> None:
    for seed, name in enumerate(("sft", "rlhf")):
        tiny.llama(seed, tied=tied, layers=3).save_pretrained(tmp_path / name)
    live = averaged(tmp_path)
    live.put(SHARES, 0.5)
    seen = []
    parameters = list(live.model.parameters())
    watch = [
        one.register_post_accumulate_grad_hook(lambda p: seen.append(sum(q.grad is not None for q in parameters)))
        for one in parameters
    ]
    with live.gradients():
        loss(live.model).backward()
    assert seen == [1] * len(parameters)
    assert all(one.grad is None for one in parameters)
    for hook in watch:
        hook.remove()


def test_a_tied_embedding_gives_its_gradient_once_and_whole(tmp_path) -> None:
    for seed, name in enumerate(("sft", "rlhf")):
        tiny.save(tmp_path / name, seed)
    readers = [Reader(read_layout(tmp_path / name)) for name in ("sft", "rlhf")]
    live = AveragedModel(load_model(tmp_path / "rlhf", "cpu"), *readers, parts_of(readers[0].layout, 2))
    step = 1e-3
    live.put([0.4, 0.6], 0.5)
    with live.gradients() as found:
        loss(live.model).backward()
    values = []
    for sign in (1, -1):
        live.put([0.4 + sign * step, 0.6], 0.5)
        with torch.no_grad():
            values.append(float(loss(live.model)))
    assert found[0] == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-2)


@pytest.mark.parametrize("tied", ["sft", "rlhf"])
def test_where_one_model_has_a_head_of_its_own_so_has_the_average_and_its_gradient_is_that_of_differences(
    tmp_path, tied
) -> None:
    for seed, name in enumerate(("sft", "rlhf")):
        tiny.llama(seed, tied=name == tied, layers=3).save_pretrained(tmp_path / name)
    readers = [Reader(read_layout(tmp_path / name)) for name in ("sft", "rlhf")]
    parts = parts_of(readers[0].layout, 3, beside=readers[1].layout)
    live = AveragedModel(load_model(tmp_path / "sft", "cpu"), *readers, parts)
    sft, rlhf = (load_model(tmp_path / name, "cpu") for name in ("sft", "rlhf"))

    live.put(SHARES, 0.5)
    for part, weight in ((0, "model.embed_tokens.weight"), (2, "lm_head.weight")):
        ours, one, other = (dict(m.named_parameters(remove_duplicate=False))[weight] for m in (live.model, sft, rlhf))
        assert torch.allclose(ours, SHARES[part] * one + (1 - SHARES[part]) * other, atol=1e-6), weight
    with live.gradients() as found:
        loss(live.model).backward()
    step = 1e-3
    for part in range(3):
        values = []
        for sign in (1, -1):
            live.put([share + sign * step * (at == part) for at, share in enumerate(SHARES)], 0.5)
            with torch.no_grad():
                values.append(float(loss(live.model)))
        assert found[part] == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-2, abs=2e-2)


def test_models_of_two_sizes_are_an_error_that_names_the_tensor(pair, tmp_path) -> None:
    tiny.llama(0, tied=False, layers=2).save_pretrained(tmp_path / "small")
    readers = [Reader(read_layout(place)) for place in (pair / "sft", tmp_path / "small")]
    with pytest.raises(CheckpointError, match=r"small: no tensor 'model.layers.2"):
        AveragedModel(load_model(pair / "sft", "cpu"), *readers, parts_of(readers[0].layout, 3))
