"""How far the optimizers are from their equations: the table in docs/optimizers.md, "Held to the equations".

python -m tests.optim.deviations
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from mergetool.optim import OnDARE, OnTIES
from tests.dist.test_ranks import launch
from tests.dist.worker import CASES, model, optimizer, train
from tests.optim.plain import PlainOnline
from tests.optim.scenes import deltas, gradients, parameters, run, values
from tests.optim.test_nothing_is_lost import drift

LR, ULP = 1e-3, 2.0**-23
METHODS = [
    ("dare", OnDARE, {"rescale": "unbiased"}),
    ("dare", OnDARE, {"rescale": "none"}),
    ("ties", OnTIES, {"elect": "weighted"}),
    ("ties", OnTIES, {"elect": "unweighted"}),
]


def adamw(params: list, weight_decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for _, p in params], lr=LR, fused=True, weight_decay=weight_decay)


def reductions() -> None:
    for cls, every in itertools.product((OnDARE, OnTIES), (1, 3)):
        ours, theirs = parameters(), parameters()
        run(cls(ours, lr=LR, density=1.0, every=every, weight_decay=0.1), ours, 7)
        run(adamw(theirs, 0.1), theirs, 7)
        apart = max(float((a - b).detach().abs().max()) for (_, a), (_, b) in zip(ours, theirs, strict=True))
        print(f"{cls.__name__} p=1 alpha=0 K={every} against AdamW: {apart}")
    before, tau = values(parameters()), deltas()
    for choice in (False, True):
        ours, theirs = parameters(), parameters()
        run(OnDARE(ours, lr=LR, density=1.0, alpha=0.25, reference=tau, compile=choice), ours, 1)
        run(adamw(theirs, 0.0), theirs, 1)
        apart = max(
            float((a - before[n] - (0.75 * (b - before[n]) + 0.25 * tau[n])).detach().abs().max())
            for (n, a), (_, b) in zip(ours, theirs, strict=True)
        )
        largest = max(float(t.abs().max()) for t in before.values())
        print(f"OnDARE p=1 compile={choice} adds alpha tau: {apart / largest / ULP:.1f} ulp")


def equations() -> None:
    worst: dict[tuple, float] = {}
    choices = itertools.product(METHODS, (0.01, 0.3), (1, 3, 6), (0.0, 0.1), (False, True))
    for (method, cls, extra), p, every, weight_decay, choice in choices:
        ours, settings = parameters(), {"lr": LR, "eps": 1e-3, "alpha": 0.01, "seed": 5, "every": every, **extra}
        ours_optimizer = cls(ours, density=p, weight_decay=weight_decay, reference=deltas(), compile=choice, **settings)
        plain = PlainOnline(parameters(), deltas(), method=method, p=p, wd=weight_decay, **settings)
        key = (method, *extra.values(), p, "K=1" if every == 1 else "K>1", f"compile={choice}")
        for step in range(6):
            run(ours_optimizer, ours, 1, first=step)
            plain.step(gradients(step))
            for n, x in ours:
                apart = (x.detach().double() - plain.theta[n]).abs().max() / max(0.02, float(plain.theta[n].abs().max()))
                worst[key] = max(worst.get(key, 0.0), float(apart) / ULP)
    for key, value in worst.items():
        print(*key, f"{value:.1f} ulp")


def drifts() -> None:
    cases = [(OnDARE, 0.02), (OnDARE, 0.5), (OnDARE, 1.0), (OnTIES, 0.02), (OnTIES, 0.5)]
    for (cls, p), dtype, choice in itertools.product(cases, (torch.float32, torch.bfloat16), (False, True)):
        measured, expected, error = drift(cls, dtype, p, 40, 400_000, compile=choice)
        share, z = measured / expected, (measured - expected) / error
        print(f"{cls.__name__} p={p} {dtype} compile={choice}: drift {share:.3f} of it, z {z:.2f}")


def ranks() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        base = {n: p.detach().clone() for n, p in model().named_parameters()}
        rng = torch.Generator().manual_seed(3)
        sft = {n: t + torch.randn(t.shape, generator=rng) * 1e-2 for n, t in base.items()}
        for which, tensors in (("base", base), ("sft", sft)):
            (directory / which).mkdir()
            (directory / which / "config.json").write_text("{}")
            save_file(tensors, directory / which / "model.safetensors")
        two, one = launch(directory, "fsdp", 2), launch(directory, "fsdp", 1)
        for case in CASES:
            alone = train(net := model(), optimizer(net, case, directory), range(6))
            apart = max(float((alone[n] - two[case][n]).abs().max()) for n in alone)
            resumed = max(float((two[case][n] - one[f"resumed {case}"][n]).abs().max()) for n in alone)
            print(f"{case}: two ranks against one {apart}, their checkpoint on one rank {resumed}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    reductions()
    equations()
    drifts()
    ranks()
