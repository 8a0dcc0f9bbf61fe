"""What one rank does: train a small model under FSDP2 or DDP and save what came out. Run by test_ranks.py."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mergetool.optim import OnDARE, OnNullSpace, OnTIES, Reference, kernels, passes
from tests.optim.calibrations import calibration

CASES = {
    f"{cls.__name__} K={every} p={density:g}": (cls, {"density": density, "every": every})
    for cls in (OnDARE, OnTIES)
    for every in (1, 3)
    for density in (0.02, 0.3)
}
CASES |= {
    f"{cls.__name__} K=1 p={density:g} compiled": (cls, {"density": density, "every": 1, "compile": True})
    for cls, density in ((OnDARE, 0.3), (OnTIES, 0.02))
}
CASES |= {f"OnNullSpace K={every}": (OnNullSpace, {"every": every}) for every in (1, 3)}


class Net(torch.nn.Module):
    """Odd sizes, so that the ranks' parts are unequal; a norm of 5 entries leaves one rank with fewer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(601, 51)
        self.up = torch.nn.Linear(51, 129)
        self.down = torch.nn.Linear(129, 5)
        self.norm = torch.nn.LayerNorm(5)


def model(wrap: str = "", mesh: DeviceMesh | None = None) -> torch.nn.Module:
    torch.manual_seed(0)
    net = Net()
    if wrap == "fsdp":
        for layer in (net.up, net.down):
            fully_shard(layer, mesh=mesh)
        fully_shard(net, mesh=mesh)
    elif wrap == "ddp":
        net = torch.nn.parallel.DistributedDataParallel(net)
    return net


def give_gradients(net: torch.nn.Module, step: int) -> None:
    """The same whole gradients whatever the wrapping; a rank keeps its part."""
    for i, p in enumerate(net.parameters()):
        whole = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + i)) * 1e-2
        if isinstance(p, DTensor):
            p.grad = distribute_tensor(whole, p.device_mesh, p.placements)
        else:
            p.grad = whole


def whole(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    values = {}
    for name, p in net.named_parameters():
        full = p.detach()
        values[name.removeprefix("module.")] = (full.full_tensor() if isinstance(full, DTensor) else full).clone()
    return values


def optimizer(net: torch.nn.Module, case: str, directory: Path) -> torch.optim.Optimizer:
    cls, options = CASES[case]
    if cls is OnNullSpace:
        found = calibration({name: tuple(p.shape) for name, p in net.named_parameters()})
        return cls(net.named_parameters(), lr=1e-3, eps=1e-3, calibration=found, strength=1.0, **options)
    reference = Reference.from_checkpoints(directory / "base", directory / "sft", storage="mmap")
    return cls(net.named_parameters(), lr=1e-3, eps=1e-3, alpha=0.01, reference=reference, seed=5, **options)


def train(net: torch.nn.Module, opt: torch.optim.Optimizer, steps: range) -> dict[str, torch.Tensor]:
    """Steps with their gradients; the whole weights afterwards."""
    for step in steps:
        give_gradients(net, step)
        opt.step()
    return whole(net)


def main() -> None:
    directory, wrap = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    kernels.SPAN = passes.SWEPT = 1 << 12  # so that these small tensors are walked in several spans, and swept, as large ones are
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    results = {}
    for case in CASES if wrap != "ddp" else list(CASES)[:1]:
        net = model(wrap, mesh)
        opt = optimizer(net, case, directory)
        train(net, opt, range(4))
        if wrap == "fsdp" and dist.get_world_size() == 2:
            # parts of τ, m, v and the anchor are a rank's own: a whole one is never held
            for state in opt.state.values():
                assert all(isinstance(v, DTensor) for k, v in state.items() if k not in ("step", "anchor_decay"))
            for binding in opt._bindings.values():
                assert binding.shard.held < binding.shard.numel
                assert binding.tau is None or binding.tau.numel == binding.shard.held
            state = {
                "model": {n: p.detach() for n, p in net.named_parameters()},
                "optimizer": get_optimizer_state_dict(net, opt),
            }
            dcp.save(state, checkpoint_id=str(directory / "dcp" / case))
        results[case] = train(net, opt, range(4, 6))
    if wrap == "fsdp":
        for case in CASES:  # saved by two ranks at step 4, loaded by however many these are
            net = model(wrap, mesh)
            with torch.no_grad():
                for p in net.parameters():
                    p.zero_()
            opt = optimizer(net, case, directory)
            state = {
                "model": {n: p.detach() for n, p in net.named_parameters()},
                "optimizer": get_optimizer_state_dict(net, opt),
            }
            dcp.load(state, checkpoint_id=str(directory / "dcp" / case))
            set_optimizer_state_dict(net, opt, state["optimizer"])
            results[f"resumed {case}"] = train(net, opt, range(4, 6))
    if dist.get_rank() == 0:
        torch.save(results, directory / f"{wrap}{dist.get_world_size()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
