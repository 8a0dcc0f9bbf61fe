"""Merging's settings and the wrapped optimizer's do not meet, whatever torch's optimizers call theirs."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings

import pytest
import torch

from mergetool.errors import CheckpointError, MergetoolError
from mergetool.methods import ONLINE
from mergetool.optim import OnlineMerge
from mergetool.optim.namespace import PREFIX, OwnSettings, prefixed

TORCHS = [
    cls for _, cls in sorted(vars(torch.optim).items())
    if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
]  # fmt: skip
DENSE = [cls for cls in TORCHS if cls is not torch.optim.SparseAdam]
LR = 1e-3


def matrices(seed: int = 0) -> list[tuple[str, torch.nn.Parameter]]:
    """Muon takes matrices alone, so all here are."""
    rng = torch.Generator().manual_seed(seed)
    return [(name, torch.nn.Parameter(torch.randn(shape, generator=rng))) for name, shape in (("a", (6, 5)), ("b", (4, 3)))]


def reference() -> dict[str, torch.Tensor]:
    return {name: torch.randn(p.shape, generator=torch.Generator().manual_seed(7)) for name, p in matrices()}


def train(optimizer: torch.optim.Optimizer, params: list, steps: int) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum(((p - 1) ** 2).sum() for _, p in params)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)


def own_keys(cls: type[torch.optim.Optimizer]) -> set[str]:
    return set(cls(matrices(), lr=LR).param_groups[0])


def test_the_optimizers_that_have_a_name_in_common_with_us_are_among_those_tried() -> None:
    common = {cls.__name__ for cls in DENSE if own_keys(cls) & set(ONLINE["dare"].settings)}
    assert {"RMSprop", "ASGD"} <= common


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("cls", DENSE)
def test_every_optimizer_of_torch_is_merged_at_the_weight_asked_for(cls: type[torch.optim.Optimizer], every: int) -> None:
    plain, ours, tau = matrices(), matrices(), reference()
    before = {name: p.detach().clone() for name, p in ours}
    alone = cls(plain, lr=LR)
    base = cls(ours, lr=LR)
    settings = {key: value for key, value in base.param_groups[0].items() if key != "params"}
    optimizer = OnlineMerge(base, method="dare", density=1.0, alpha=0.01, every=every, reference=tau)
    train(alone, plain, every)
    train(optimizer, ours, every)
    assert {key: base.param_groups[0][key] for key in settings} == settings
    for (name, p), (_, q) in zip(ours, plain, strict=True):
        torch.testing.assert_close(p, before[name] + 0.99 * (q - before[name]) + 0.01 * tau[name], rtol=1e-5, atol=1e-6)
    assert optimizer.merged == pytest.approx((1, 0.01, 0.01))
    assert optimizer.merged == pytest.approx(optimizer.planned(every))


@pytest.mark.parametrize("cls", DENSE)
def test_without_a_reference_every_optimizer_is_masked_alone(cls: type[torch.optim.Optimizer]) -> None:
    params = matrices()
    train(OnlineMerge(cls(params, lr=LR), density=0.5, alpha=0.0), params, 2)


def test_an_optimizer_for_sparse_gradients_is_refused_by_name() -> None:
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    optimizer = OnlineMerge(torch.optim.SparseAdam(list(embedding.named_parameters())), density=0.5)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(MergetoolError, match=r"weight has a sparse gradient"):
        optimizer.step()


class Foreign(torch.optim.Optimizer):
    """Has a setting of every name that ours have, some of them only from its first step on."""

    LATE = ("seed", "merges")

    def __init__(self, params) -> None:
        super().__init__(
            params, {"lr": LR} | {name: f"its own {name}" for name in ONLINE["dare"].settings if name not in self.LATE}
        )

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for name in self.LATE:
                assert group.setdefault(name, f"its own {name}") == f"its own {name}"
            assert all(group[name] == f"its own {name}" for name in ONLINE["dare"].settings)
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["lr"])


def test_an_optimizer_with_all_our_names_keeps_them_and_ours_are_still_read() -> None:
    params = matrices()
    optimizer = OnlineMerge(Foreign(params), density=1.0, alpha=0.25, every=2, seed=3, reference=reference())
    for _ in range(4):
        for _, p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert optimizer.merged == pytest.approx((2, 0.5, 0.5))
    again = OnlineMerge(Foreign(matrices()), reference=reference())
    again.load_state_dict(optimizer.state_dict())
    assert again.merged == optimizer.merged
    assert again.param_groups[0][PREFIX + "density"] == 1.0


def test_a_group_may_have_settings_of_its_own_under_the_prefix() -> None:
    (first, second), tau = matrices(), reference()
    groups = [{"params": [first], PREFIX + "alpha": 0.5}, {"params": [second]}]
    optimizer = OnlineMerge(torch.optim.RMSprop(groups, lr=1e-12), density=1.0, alpha=0.0, reference=tau)
    third = ("c", torch.nn.Parameter(torch.zeros(2)))
    optimizer.reference = None
    optimizer.add_param_group({"params": [third], "alpha": 0.9, "density": 0.5})  # RMSprop's alpha, our density
    assert [group[PREFIX + "alpha"] for group in optimizer.param_groups] == [0.5, 0.0, 0.0]
    assert [group[PREFIX + "density"] for group in optimizer.param_groups] == [1.0, 1.0, 0.5]
    assert [group["alpha"] for group in optimizer.param_groups] == [0.99, 0.99, 0.9]


def test_a_bare_name_that_the_optimizer_does_not_know_is_left_alone_with_a_warning() -> None:
    base = torch.optim.SGD([{"params": matrices(), "density": 0.5}], lr=LR)
    with pytest.warns(UserWarning, match="online_merge_density"):
        optimizer = OnlineMerge(base, density=1.0)
    assert optimizer.param_groups[0][PREFIX + "density"] == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OnlineMerge(torch.optim.RMSprop(matrices()), density=1.0)


def bare(group: dict) -> dict:
    """A group as it was saved before there was the prefix: one name for both."""
    return {key.removeprefix(PREFIX): value for key, value in group.items()}


@pytest.mark.parametrize("cls", [c for c in DENSE if c is not torch.optim.LBFGS])
def test_a_state_from_before_the_prefix_loads_but_where_a_name_was_the_optimizers_too(cls: type[torch.optim.Optimizer]) -> None:
    params, again = matrices(), matrices()
    optimizer = OnlineMerge(cls(params, lr=LR), density=0.5, alpha=0.1, every=3, seed=4, reference=reference())
    train(optimizer, params, 4)
    saved = copy.deepcopy(dict(optimizer.state_dict()))
    saved["param_groups"] = [bare(group) for group in saved["param_groups"]]
    other = OnlineMerge(cls(again, lr=LR), reference=reference())
    if own_keys(cls) & set(ONLINE["dare"].settings):
        with pytest.raises(CheckpointError, match="the wrapped optimizer's and the merge's"):
            other.load_state_dict(saved)
        return
    other.load_state_dict(saved)
    assert other.param_groups[0] | {"params": 0} == optimizer.param_groups[0] | {"params": 0}
    for (_, p), (_, q) in zip(params, again, strict=True):
        q.data.copy_(p.data)
    train(optimizer, params, 3)
    train(other, again, 3)
    assert all(torch.equal(p, q) for (_, p), (_, q) in zip(params, again, strict=True))


def test_a_pickle_from_before_the_prefix_goes_on() -> None:
    params = matrices()
    optimizer = OnlineMerge(torch.optim.SGD(params, lr=LR, momentum=0.9), density=0.5, alpha=0.1, reference=reference())
    train(optimizer, params, 2)
    old = copy.deepcopy(optimizer)
    for group in old.param_groups:
        renamed = bare(group)
        group.clear()
        group.update(renamed)
    again = pickle.loads(pickle.dumps(old))
    train(optimizer, params, 2)
    train(again, list(zip("ab", again.param_groups[0]["params"], strict=True)), 2)
    assert all(torch.equal(p, q) for (_, p), q in zip(params, again.param_groups[0]["params"], strict=True))
    assert again.merged == optimizer.merged


def test_the_view_hides_what_the_prefix_stands_before() -> None:
    group = {"params": [], "alpha": 0.99, PREFIX + "alpha": 0.1, "lr": 1.0}
    own = OwnSettings(group, ["alpha", "density"])
    assert dict(own) == {"params": [], "alpha": 0.1, "lr": 1.0}
    assert len(own) == 3
    own["density"] = 0.5
    del own["alpha"]
    assert group == {"params": [], "alpha": 0.99, PREFIX + "density": 0.5, "lr": 1.0}
    assert prefixed(group, ["alpha"], ["alpha"]) is group  # it has the prefix already
