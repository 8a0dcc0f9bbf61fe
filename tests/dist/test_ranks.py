"""Theorem 7: two ranks (FSDP2, gloo on the CPU) keep the entries that one keeps and come to the same weights."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.dist.worker import CASES, model, optimizer, train

pytestmark = pytest.mark.dist


def launch(directory: Path, wrap: str, ranks: int) -> dict[str, dict[str, torch.Tensor]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parents[2]
    common = os.environ | {
        "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(root),
    }  # fmt: skip
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.dist.worker", str(directory), wrap],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, output in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, output[-4000:]
    return torch.load(directory / f"{wrap}{ranks}.pt", weights_only=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    directory = tmp_path_factory.mktemp("ranks")
    base = {n: p.detach().clone() for n, p in model().named_parameters()}
    rng = torch.Generator().manual_seed(3)
    sft = {n: t + torch.randn(t.shape, generator=rng) * 1e-2 for n, t in base.items()}
    for which, tensors in (("base", base), ("sft", sft)):
        (directory / which).mkdir()
        (directory / which / "config.json").write_text("{}")
        save_file(tensors, directory / which / "model.safetensors")
    return {
        "plain": {case: train(net := model(), optimizer(net, case, directory), range(6)) for case in CASES},
        "fsdp2": launch(directory, "fsdp", 2),
        "fsdp1": launch(directory, "fsdp", 1),  # also loads what two ranks saved
        "ddp2": launch(directory, "ddp", 2),
    }


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    for name, x in a.items():
        scale = float(x.abs().max())
        assert float((x - b[name]).abs().max()) <= 2e-6 * scale, name


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_come_to_the_weights_of_one(runs: dict, case: str) -> None:
    close(runs["plain"][case], runs["fsdp2"][case])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_distributed_checkpoint_of_two_ranks_goes_on_on_one_and_on_two(runs: dict, case: str, ranks: int) -> None:
    close(runs["fsdp2"][case], runs[f"fsdp{ranks}"][f"resumed {case}"])


def test_ddp_comes_to_the_weights_of_one_rank(runs: dict) -> None:
    for case, values in runs["ddp2"].items():
        for name, x in values.items():
            assert torch.equal(x, runs["plain"][case][name]), name
