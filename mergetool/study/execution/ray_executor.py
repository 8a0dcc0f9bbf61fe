"""Workers on a Ray cluster: actors that each hold a model; the lines of results come back to the driver."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from mergetool.errors import MergetoolError
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.execution.evaluator import Evaluator
from mergetool.study.execution.scheduler import Executor, Lost, Row
from mergetool.study.recipe.study_recipe import StudyRecipe


class RayExecutor(Executor):
    """Ray actors, spread over the nodes; each takes a GPU where the cluster has GPUs, and else a core.

    OUT, the models and the data must lie under the same paths on every node, and mergetool be installed there. The
    driver alone writes results.jsonl.

    Args:
        evaluator: of the study.
        address: "local" starts a cluster on this machine; "auto" finds the running one; else its address.
        size: actors; None: one for each GPU, or where there is none for each node.

    Raises:
        MergetoolError: Ray is not installed, does not answer, or has not that many GPUs or cores.
    """

    def __init__(self, evaluator: Evaluator, address: str, size: int | None) -> None:
        self._stdout = contextlib.redirect_stdout(sys.stderr)  # Ray prints a worker's death there; stdout is for results
        self._ray = _connect(address)
        self._stdout.__enter__()
        try:
            resources = self._ray.cluster_resources()
            gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
            if evaluator.device not in (None, "cuda") or not gpus:
                gpus = 0
            room, what = (gpus, "GPUs") if gpus else (cores, "cores")
            size = size or gpus or len([node for node in self._ray.nodes() if node["Alive"]])
            if size > room:
                raise MergetoolError(f"--workers {size}: the Ray cluster has {room} {what}", f"give at most {room}")
            super().__init__(evaluator, size)
            self._asks = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1}
            out, measured = evaluator.out.absolute(), (evaluator.device, evaluator.dtype)
            self._making = (evaluator.recipe, out, evaluator.fresh, *measured, max(1, cores // size))
            self._actors = [self._actor() for _ in range(size)]
        except BaseException:
            self.close()
            raise

    def _actor(self) -> Any:
        # retries are the scheduler's: an actor that Ray started again by itself would have another candidate's error
        options = {**self._asks, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        return self._ray.remote(_Worker).options(**options).remote(*self._making)

    def _submit(self, seat: int, candidate: Candidate) -> Any:
        return self._actors[seat].row.remote(candidate)

    def _wait(self, handles: list[Any]) -> list[Any]:
        return self._ray.wait(handles, num_returns=1)[0]

    def _result(self, handle: Any) -> Row:
        from ray.exceptions import RayError, RayTaskError

        try:
            return self._ray.get(handle)
        except RayTaskError as error:  # SFT could not be measured: the same error as without Ray
            cause = error.cause
            raise cause if isinstance(cause, MergetoolError) else error from None
        except RayError as error:
            raise Lost(type(error).__name__) from None

    def _renew(self, seat: int) -> None:
        self._ray.kill(self._actors[seat])
        self._actors[seat] = self._actor()

    def close(self) -> None:
        self._ray.shutdown()
        self._stdout.__exit__(None, None, None)


def _connect(address: str) -> Any:
    import logging

    try:
        import ray
    except ImportError:
        raise MergetoolError("--ray: Ray is not installed", 'pip install "mergetool[ray]"') from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what is compared here is nobody else's business
    # a warning of Ray's own about CUDA_VISIBLE_DEVICES of actors without a GPU
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    _must_answer(address)
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, **options)
        else:
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise _silent(address, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__) from None
    return ray


def _must_answer(address: str) -> None:
    """Ray itself tries for minutes to reach an address where nobody is."""
    import socket

    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise _silent(address, getattr(error, "strerror", None) or str(error)) from None


def _silent(address: str, reason: str) -> MergetoolError:
    return MergetoolError(
        f"--ray {address}: no Ray cluster answers ({reason})",
        "start one with `ray start --head`, set RAY_AUTH_MODE=token if it asks for a token, or give --ray local",
    )


class _Worker:
    """An actor: an evaluator with its live model."""

    def __init__(
        self, recipe: StudyRecipe, out: Path, fresh: bool, device: str | None, dtype: str | None, threads: int
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self._evaluator = Evaluator(recipe, out, fresh, device, dtype)

    def row(self, candidate: Candidate) -> dict[str, Any]:
        return self._evaluator.row(candidate)
