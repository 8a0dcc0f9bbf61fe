"""A loaded state is checked as a new group is: the same parameters' is put in order, any other refused, and nothing crashes."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mergetool.errors import CheckpointError, MergetoolError, RecipeError
from mergetool.optim import OnDARE, OnLinear, OnlineMerge, OnTIES
from mergetool.optim.loading import count_of, entries_of, number_of, saved_groups

SHAPES = {"a": (40, 30), "b": (30,), "c": (30, 40), "d": (7,), "e": (40, 30)}
Named = list[tuple[str, torch.nn.Parameter]]


def around(cls: type[torch.optim.Optimizer], **how: Any) -> Callable[..., OnlineMerge]:
    def make(params: Any, **kw: Any) -> OnlineMerge:
        return OnlineMerge(cls(params, **{"lr": 1e-2, **how}), **kw)

    return make


KINDS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "OnDARE": (OnDARE, {"density": 0.5}),
    "OnDARE by entries": (OnDARE, {"density": 0.01}),
    "OnDARE K": (OnDARE, {"density": 0.5, "every": 3, "weight_decay": 0.1}),
    "OnTIES": (OnTIES, {"density": 0.1}),
    "OnTIES K": (OnTIES, {"density": 0.1, "every": 3}),
    "OnLinear": (OnLinear, {"every": 2}),
    "around SGD": (around(torch.optim.SGD, momentum=0.9), {"density": 0.5, "every": 3}),
    "around fused Adam": (around(torch.optim.Adam, fused=True), {"density": 0.5, "method": "ties"}),
    "around Adafactor": (around(torch.optim.Adafactor), {"density": 0.5}),
}


def parameters(names: str = "abcde", dtype: torch.dtype = torch.float32) -> Named:
    rng = torch.Generator().manual_seed(0)
    values = {name: torch.randn(shape, generator=rng) * 0.02 for name, shape in SHAPES.items()}
    return [(name, torch.nn.Parameter(values[name].to(dtype))) for name in names]


def reference() -> dict[str, torch.Tensor]:
    return {name: torch.full(shape, 0.01) for name, shape in SHAPES.items()}


def made(kind: str, params: Any, **kw: Any) -> Any:
    make, how = KINDS[kind]
    return make(params, **{"alpha": 0.1, "reference": reference(), **how, **kw})


def run(optimizer: torch.optim.Optimizer, params: Named, first: int, last: int) -> None:
    for step in range(first, last):
        for name, p in params:
            rng = torch.Generator().manual_seed(100 * step + ord(name))
            p.grad = (torch.randn(SHAPES[name], generator=rng) * 1e-2).to(p.dtype)
        optimizer.step()


def half(kind: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Named, dict[str, Any]]:
    """An optimizer after four steps, its parameters, and its state by way of a file."""
    params = parameters(dtype=dtype)
    optimizer = made(kind, params)
    run(optimizer, params, 0, 4)
    return optimizer, params, through_a_file(optimizer.state_dict())


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def values(params: Named) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in params}


def continued(kind: str, groups: Any, params: Named, state: Any, start: Named) -> dict[str, torch.Tensor]:
    optimizer = made(kind, groups)
    optimizer.load_state_dict(state)
    for name, p in params:
        p.data.copy_(dict(start)[name].data)
    run(optimizer, params, 4, 8)
    return values(params)


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_parameters_in_another_order_go_on_bit_for_bit(kind: str, dtype: torch.dtype) -> None:
    optimizer, params, state = half(kind, dtype)
    start = [(name, torch.nn.Parameter(p.detach().clone())) for name, p in params]
    run(optimizer, params, 4, 8)
    right = values(params)
    for names in ("abcde", "edcba", "ebcda"):
        again = parameters(names, dtype)
        found = continued(kind, again, again, copy.deepcopy(state), start)
        assert all(torch.equal(found[name], right[name]) for name in right), names
    # what DDP and torch.compile put before a name does not matter
    again = parameters("ecabd", dtype)
    found = continued(kind, [(f"module._orig_mod.{n}", p) for n, p in again], again, copy.deepcopy(state), start)
    assert all(torch.equal(found[name], right[name]) for name in right)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_in_another_order_keep_their_settings_with_their_parameters(kind: str) -> None:
    params = parameters()
    of = dict(params)
    optimizer = made(kind, [{"params": [(n, of[n]) for n in "ace"], "lr": 1e-3}, {"params": [(n, of[n]) for n in "bd"]}])
    run(optimizer, params, 0, 4)
    state, start = through_a_file(optimizer.state_dict()), [(n, torch.nn.Parameter(p.detach().clone())) for n, p in params]
    run(optimizer, params, 4, 8)
    right, again = values(params), parameters()
    of = dict(again)
    groups = [{"params": [(n, of[n]) for n in "db"]}, {"params": [(n, of[n]) for n in "cea"]}]
    found = continued(kind, groups, again, state, start)
    assert all(torch.equal(found[name], right[name]) for name in right)
    other = made(kind, [{"params": [(n, of[n]) for n in "abc"]}, {"params": [(n, of[n]) for n in "de"]}])
    with pytest.raises(CheckpointError, match="group 0 holds other parameters"):
        other.load_state_dict(state)


@pytest.mark.parametrize("kind", KINDS)
def test_other_parameters_are_refused_by_name_and_nothing_has_changed(kind: str) -> None:
    *_, state = half(kind)
    renamed = [({"a": "a2"}.get(n, n), p) for n, p in parameters()]
    tau = {({"a": "a2"}.get(n, n)): t for n, t in reference().items()}
    optimizer = made(kind, renamed, reference=tau)
    with pytest.raises(CheckpointError, match=r"other parameters: it lacks a2 and it has a;"):
        optimizer.load_state_dict(state)
    assert not optimizer.state
    two = [{"params": parameters("ab")}, {"params": parameters("cde")}]
    for params, words in ((parameters("abcd"), "1 group of 5 parameters"), (two, "2 groups of 2, 3")):
        with pytest.raises(CheckpointError, match=words):
            made(kind, params).load_state_dict(state)


@pytest.mark.parametrize("kind", KINDS)
def test_without_names_an_order_is_found_wrong_by_its_shapes(kind: str) -> None:
    make, how = KINDS[kind][0], {**KINDS[kind][1], "alpha": 0.0}
    params = parameters()
    optimizer = make([p for _, p in params], **how)
    run(optimizer, params, 0, 2)
    again = parameters("edcba")
    other = make([p for _, p in again], **how)
    with pytest.raises(CheckpointError, match="shape"):
        other.load_state_dict(optimizer.state_dict())


def test_distributed_checkpoints_have_names_in_place_of_numbers() -> None:
    *_, state = half("OnDARE K")
    names = state["param_groups"][0].pop("param_names")
    state["state"] = {names[i]: value for i, value in state["state"].items()}
    state["param_groups"][0]["params"] = names
    again = parameters("edcba")
    optimizer = made("OnDARE K", again)
    optimizer.load_state_dict(state)
    assert optimizer.state[again[0][1]]["exp_avg"].shape == SHAPES["e"]
    assert all(torch.equal(optimizer.state[p]["exp_avg"], state["state"][n]["exp_avg"]) for n, p in again)
    state["param_groups"][0]["param_names"] = names  # torch has the numbers' order right, and that of the names not
    optimizer.load_state_dict(state)
    assert all(torch.equal(optimizer.state[p]["exp_avg"], state["state"][n]["exp_avg"]) for n, p in again)


def test_a_users_hook_may_mend_names_before_they_are_checked() -> None:
    *_, state = half("OnDARE")
    state["param_groups"][0]["param_names"] = [f"model.{n}" for n in state["param_groups"][0]["param_names"]]
    optimizer = made("OnDARE", parameters())
    with pytest.raises(CheckpointError, match="other parameters"):
        optimizer.load_state_dict(state)

    def corrected(_: Any, given: dict[str, Any]) -> dict[str, Any]:
        for group in given["param_groups"]:
            group["param_names"] = [name.removeprefix("model.") for name in group["param_names"]]
        return given

    optimizer.register_load_state_dict_pre_hook(corrected)
    optimizer.load_state_dict(state)


# --- method and reference ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_a_state_goes_into_its_own_method_alone(source: str, target: str) -> None:
    *_, state = half(source)
    optimizer = made(target, parameters())
    same = source.split()[:2] == target.split()[:2] if source.startswith("around") else source.split()[0] == target.split()[0]
    if same:
        optimizer.load_state_dict(state)
        return
    with pytest.raises(MergetoolError) as caught:
        optimizer.load_state_dict(state)
    assert caught.value.hint
    assert not optimizer.state


@pytest.mark.parametrize(("source", "target"), [(OnDARE, OnTIES), (OnTIES, OnDARE)])
def test_where_nothing_but_the_method_differs_it_is_still_known(source: type, target: type) -> None:
    common = {"alpha": 0.1, "rescale": "none", "density": 1.0, "reference": reference()}
    params = parameters()
    optimizer = source(params, **common)
    run(optimizer, params, 0, 1)
    state = through_a_file(optimizer.state_dict())
    assert set(state) == {"state", "param_groups"}
    with pytest.raises(CheckpointError, match=f"method '{optimizer.method}'"):
        target(parameters(), **common).load_state_dict(state)


@pytest.mark.parametrize("target", [OnDARE, OnTIES, OnLinear])
def test_where_both_are_adamws_own_step_the_method_does_not_matter(target: type) -> None:
    params = parameters()
    optimizer = OnTIES(params, density=1.0, alpha=0.0)
    run(optimizer, params, 0, 2)
    target(parameters(), alpha=0.0).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_merges_is_refused_where_there_is_no_reference(kind: str) -> None:
    *_, state = half(kind)
    optimizer = made(kind, parameters(), alpha=0.0, reference=None)
    with pytest.raises(RecipeError, match="no reference"):
        optimizer.load_state_dict(state)
    assert not optimizer.state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("cls", [OnDARE, OnTIES, OnLinear])
def test_torchs_adamw_goes_on_in_ours(cls: type, named: bool, dtype: torch.dtype) -> None:
    params, ours = parameters(dtype=dtype), parameters("ebcda" if named else "abcde", dtype=dtype)
    torchs = torch.optim.AdamW(params if named else [p for _, p in params], lr=3e-3, weight_decay=0.1, fused=True)
    run(torchs, params, 0, 3)
    exact = {"rounding": "nearest", "moments": "parameter"}
    optimizer = cls(ours, **({} if cls is OnLinear else {"density": 1.0}), **exact)
    optimizer.load_state_dict(copy.deepcopy(torchs.state_dict()))
    for name, p in ours:
        p.data.copy_(dict(params)[name].data)
    run(torchs, params, 3, 6)
    run(optimizer, ours, 3, 6)
    assert all(torch.equal(dict(params)[name], p) for name, p in ours)
    assert set(optimizer.param_groups[0]) - {"param_names"} == set(cls(parameters()).param_groups[0]) - {"param_names"}
    assert optimizer.merged.merges == 3


OTHERS = ("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adamax", "NAdam", "RMSprop", "Rprop", "SGD")


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", ["OnDARE", "OnLinear", "around fused Adam"])
def test_another_optimizers_state_is_refused(kind: str, name: str) -> None:
    params = parameters()
    other = getattr(torch.optim, name)(params, **({"momentum": 0.9} if name == "SGD" else {}))
    run(other, params, 0, 2)
    with pytest.raises(CheckpointError):
        made(kind, parameters()).load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: torch.optim.AdamW(p, amsgrad=True), "amsgrad"),
        (lambda p: torch.optim.AdamW(p, maximize=True), "maximize"),
        (lambda p: torch.optim.Adam(p, weight_decay=0.1), "decoupled"),
        (lambda p: torch.optim.SGD(p, lr=0.1), "no betas"),
        (lambda p: torch.optim.RAdam(p, lr=0.1), "RAdam"),
    ],
)
def test_what_ours_cannot_do_is_not_continued(make: Callable, words: str) -> None:
    params = parameters()
    other = make(params)
    run(other, params, 0, 1)
    with pytest.raises(CheckpointError, match=words):
        OnDARE(parameters()).load_state_dict(other.state_dict())
    OnDARE(parameters()).load_state_dict(torch.optim.Adam(parameters()).state_dict())  # without decay it is AdamW


def test_onlinemerge_goes_on_from_the_state_of_the_optimizer_alone() -> None:
    params, ours = parameters(), parameters("edcba")
    alone = torch.optim.RMSprop(params, lr=1e-3)
    run(alone, params, 0, 3)
    optimizer = OnlineMerge(torch.optim.RMSprop(ours, lr=1e-3), density=1.0, alpha=0.0)
    optimizer.load_state_dict(alone.state_dict())
    assert optimizer.merged.merges == 0
    for name, p in ours:
        assert torch.equal(optimizer.state[p]["square_avg"], alone.state[dict(params)[name]]["square_avg"])
    run(optimizer, ours, 3, 4)


# --- damage -----------------------------------------------------------------------------------------------------------


def first_state(state: dict[str, Any]) -> dict[str, Any]:
    return state["state"][0]


def tensor_key(state: dict[str, Any]) -> str:
    return next(k for k, v in first_state(state).items() if isinstance(v, torch.Tensor) and v.dim() == 2)


def set_entry(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: first_state(state).update({key: value})


def change(how: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda state: first_state(state).update({tensor_key(state): how(first_state(state)[tensor_key(state)])})


def set_group(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state["param_groups"][0].update({key: value})


def count_key(state: dict[str, Any]) -> str:
    return "step" if "step" in first_state(state) else "merge_step"


def count(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: first_state(state).update({count_key(state): value})


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "truncated": change(lambda t: t[:-1]),
    "one row": change(lambda t: t[:1]),
    "flattened": change(lambda t: t.flatten()),
    "transposed": change(lambda t: t.t()),
    "a scalar": change(lambda t: t.sum()),
    "empty": change(lambda t: t[:0]),
    "too large": change(lambda t: torch.cat([t, t])),
    "integers": change(lambda t: t.to(torch.int32)),
    "bytes": change(lambda t: t.view(torch.uint8)),
    "complex": change(lambda t: t.to(torch.complex64)),
    "eight bits": change(lambda t: t.to(torch.float8_e4m3fn)),
    "truth values": change(lambda t: t > 0),
    "sparse": change(lambda t: t.to_sparse()),
    "without numbers": change(lambda t: t.to("meta")),
    "a list": change(lambda t: t.tolist()),
    "None": change(lambda t: None),
    "missing": lambda state: first_state(state).pop(tensor_key(state)),
    "NaN steps": count(torch.tensor(math.nan)),
    "infinite steps": count(torch.tensor(math.inf)),
    "negative steps": count(torch.tensor(-3.0)),
    "many steps": count(torch.tensor([1.0, 2.0])),
    "steps in words": count("four"),
    "complex steps": count(torch.tensor(1j)),
    "no states": lambda state: state.update(state=None),
    "no groups": lambda state: state.update(param_groups=None),
    "no state_dict": lambda state: state.clear(),
    "a state that is a list": lambda state: state["state"].update({0: [1, 2]}),
    "a group that is none": lambda state: state.update(param_groups=[3]),
    "numbers of nobody": lambda state: state["state"].update({77: first_state(state)}),
    "numbers twice": set_group("params", [0, 1, 2, 3, 3]),
    "tensors for numbers": set_group("params", [torch.zeros(2)] * 5),
    "names of too few": set_group("param_names", ["a", "b"]),
    "names that are none": set_group("param_names", [1, 2, 3, 4, 5]),
    "names twice": set_group("param_names", ["a", "b", "c", "d", "d"]),
    "a learning rate in words": set_group("lr", "fast"),
}
STRUCTURE = ("no states", "no groups", "no state_dict")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_one_error_and_nothing_has_changed(kind: str, damage: str) -> None:
    *_, state = half(kind)
    if kind.startswith("around") and damage == "a learning rate in words":
        pytest.skip("the wrapped optimizer's own setting")
    DAMAGE[damage](state)
    ours, others = parameters(), parameters()
    optimizer, untouched = made(kind, ours), made(kind, others)
    with pytest.raises(MergetoolError) as caught:
        optimizer.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    run(optimizer, ours, 0, 3)
    run(untouched, others, 0, 3)
    assert all(torch.equal(p, q) for (_, p), (_, q) in zip(ours, others, strict=True))


@pytest.mark.parametrize("kind", ["OnDARE K", "around SGD"])
@pytest.mark.parametrize(
    "damage",
    [set_entry("anchor", torch.zeros(40, 29)), set_entry("anchor", None), set_entry("merge_step", torch.tensor(0.5))],
)
def test_a_damaged_anchor_or_count_of_merging_is_one_error(kind: str, damage: Callable[[dict[str, Any]], None]) -> None:
    *_, state = half(kind)
    damage(state)
    with pytest.raises(CheckpointError, match=r"(anchor|merge_step) of a"):
        made(kind, parameters()).load_state_dict(state)


@pytest.mark.parametrize("key", ["density", "every", "alpha", "rescale", "clip", "merges", "merged_alpha", "seed"])
@pytest.mark.parametrize("value", ["x", None, math.nan, [1], -2, torch.zeros(3)])
@pytest.mark.parametrize("kind", ["OnDARE", "around SGD"])
def test_a_damaged_setting_is_one_error_or_harmless(kind: str, key: str, value: Any) -> None:
    *_, state = half(kind)
    prefix = "online_merge_" if kind.startswith("around") else ""
    state["param_groups"][0][prefix + key] = value
    stepped_or_refused(kind, state)


def stepped_or_refused(kind: str, state: Any) -> None:
    params = parameters()
    optimizer = made(kind, params)
    try:
        optimizer.load_state_dict(state)
    except MergetoolError:
        return
    run(optimizer, params, 4, 6)
    assert isinstance(optimizer.merged.share, float)


ANYTHING = st.sampled_from(
    [None, True, -1, 3, 2**70, 0.5, math.nan, math.inf, "x", "", (), [1], {}, {"a": 1}, torch.zeros(0), torch.zeros(3),
     torch.tensor(math.nan), torch.zeros(40, 30, dtype=torch.float64), torch.zeros(40, 30, dtype=torch.int8),
     torch.zeros(1).expand(40, 30), torch.zeros(30, 40).t(), torch.ones(40, 30, dtype=torch.bfloat16)]
)  # fmt: skip


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data(), kind=st.sampled_from(["OnDARE K", "OnTIES", "around SGD", "around fused Adam"]))
def test_whatever_is_damaged_is_refused_or_can_be_stepped(data: st.DataObject, kind: str) -> None:
    global _halves
    state = copy.deepcopy(_halves.setdefault(kind, half(kind)[2]))
    for _ in range(data.draw(st.integers(1, 2))):
        place: Any = state
        for _ in range(data.draw(st.integers(0, 3))):
            keys = list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
            inner = [key for key in keys if isinstance(place[key], dict | list) and len(place[key])]
            if not inner:
                break
            place = place[data.draw(st.sampled_from(inner))]
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.booleans()):
            place[key] = data.draw(ANYTHING)
        else:
            del place[key]
        if not state:
            break
    # the wrapped optimizer's own settings are its own to check
    theirs = isinstance(state.get("param_groups"), list) and kind.startswith("around")
    for group in state["param_groups"] if theirs else []:
        if isinstance(group, dict):
            good = half_groups(kind)
            group.update({key: value for key, value in good.items() if not key.startswith(("online_merge_", "param"))})
    stepped_or_refused(kind, state)


_halves: dict[str, Any] = {}


def half_groups(kind: str) -> dict[str, Any]:
    return _halves[kind]["param_groups"][0]


# --- the parts --------------------------------------------------------------------------------------------------------


def test_counts_are_whole_and_of_a_type_that_can_count_so_far() -> None:
    assert count_of(torch.tensor(7.0), "step") == 7
    assert count_of(3, "step").dtype == torch.float32
    assert count_of(torch.tensor([200], dtype=torch.bfloat16), "step") == 200
    for wrong in (torch.tensor(300.0, dtype=torch.bfloat16), 0.5, True, None, torch.tensor(-1)):
        with pytest.raises(CheckpointError, match="step is"):
            count_of(wrong, "step")
    assert number_of(torch.tensor(0.5), "x") == 0.5


def test_entries_are_made_contiguous_and_of_the_type_asked_for() -> None:
    p = torch.zeros(3, 4)
    found = entries_of(torch.ones(4, 3, dtype=torch.bfloat16).t(), p, torch.float32, "m")
    assert found.is_contiguous()
    assert found.dtype == torch.float32
    with pytest.raises(CheckpointError, match=r"m has the shape \[4, 3\], and should have \[3, 4\]"):
        entries_of(torch.ones(4, 3), p, torch.float32, "m")


def test_a_group_without_parameters_keeps_its_place() -> None:
    groups = [{"params": []}, {"params": [torch.zeros(1)], "param_names": ["w"]}]
    state = {"state": {0: {"x": 1}}, "param_groups": [{"params": [], "lr": 1}, {"params": [0], "param_names": ["w"], "lr": 2}]}
    assert [(one.settings["lr"], one.states) for one in saved_groups(state, groups)] == [(1, []), (2, [{"x": 1}])]
