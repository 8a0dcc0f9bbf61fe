"""What is kept beside a training and travels with its checkpoints: averages of the weights, a reference that moves.

Each rank holds its own part, as the parameters lie on it; a checkpoint has whole tensors, in files beside the trainer's own, so
that a resumed run goes on exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.align.averages import Average

if TYPE_CHECKING:
    from torch import Tensor

_REFERENCE = "reference"


@functools.cache
def _callback() -> type:
    from transformers import TrainerCallback

    class Averaging(TrainerCallback):
        """Keeps an average, in fp32."""

        def __init__(self, rule: Average) -> None:
            self.rule = rule
            self.kept: dict[str, dict[str, Any]] = {}  # parameter -> name of what is kept -> this rank's part

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            """From the checkpoint's files in a resumed run, else from theta_s."""
            self.rule.places(state.max_steps)
            self.kept = {name: self.rule.begin(_part(p)) for name, p in trained(model)}
            if state.global_step:
                self.load(Path(args.output_dir) / f"checkpoint-{state.global_step}", model)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            """One step of the rule."""
            for name, p in trained(model):
                self.rule.step(self.kept[name], _part(p), state.global_step, state.max_steps)

        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            """Beside the trainer's own files; of sharded weights all ranks gather, the first one writes."""
            for what in self.rule.keeps:
                whole = {name: gathered(self.kept[name][what], p) for name, p in trained(model)}
                if state.is_world_process_zero:
                    write_tensors(whole, Path(args.output_dir) / f"checkpoint-{state.global_step}", what)

        def load(self, checkpoint: Path, model: Any) -> None:
            """Takes what a checkpoint has kept."""
            from safetensors.torch import load_file

            for what in self.rule.keeps:
                found = load_file(checkpoint / f"{what}.safetensors")
                for name, p in trained(model):
                    self.kept[name][what].copy_(scattered(found[name], p))

        @contextmanager
        def in_place(self, model: Any) -> Iterator[None]:
            """Within it, the average is the model's weights."""
            before = {name: _part(p).clone() for name, p in trained(model)}
            self.put(model)
            try:
                yield
            finally:
                for name, p in trained(model):
                    _part(p).copy_(before[name])

        def put(self, model: Any) -> None:
            """Makes the average the model's weights."""
            assert self.rule.published is not None
            for name, p in trained(model):
                _part(p).copy_(self.kept[name][self.rule.published])

    return Averaging


def averaging(rule: Average) -> Any:
    """The trainer's callback that keeps an average; `put` makes it the model."""
    return _callback()(rule)


@functools.cache
def _reference_callback() -> type:
    from transformers import TrainerCallback

    class MovingReference(TrainerCallback):
        """Keeps the reference model of a run that TRL moves along (`sync_ref_model`); TRL's own checkpoints lack it."""

        model: Any = None
        """The reference, which the trainer's constructor makes."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """From the checkpoint's file in a resumed run."""
            from safetensors.torch import load_file

            if state.global_step:
                found = load_file(Path(args.output_dir) / f"checkpoint-{state.global_step}" / f"{_REFERENCE}.safetensors")
                for name, p in parameters(self.model):
                    _part(p).copy_(scattered(found[name], p))

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Beside the trainer's own files."""
            whole = {name: gathered(_part(p), p) for name, p in parameters(self.model)}
            if state.is_world_process_zero:
                write_tensors(whole, Path(args.output_dir) / f"checkpoint-{state.global_step}", _REFERENCE)

    return MovingReference


def moving_reference() -> Any:
    """The trainer's callback that keeps a reference model which moves; its `model` is set when there is one."""
    return _reference_callback()()


def parameters(model: Any) -> list[tuple[str, Any]]:
    """A model's parameters, under the names that they have whatever wraps it."""
    from mergetool.optim.names import canonical

    return [(canonical(name), p) for name, p in model.named_parameters()]


def trained(model: Any) -> list[tuple[str, Any]]:
    """Those of its parameters that are trained."""
    return [(name, p) for name, p in parameters(model) if p.requires_grad]


def _part(parameter: Any) -> Tensor:
    """What this rank holds of a parameter, in the parameter's own memory."""
    held = parameter.detach()
    return getattr(held, "_local_tensor", held)


def gathered(part: Tensor, parameter: Any) -> Tensor:
    """The whole tensor of which each rank has a part, laid out as the parameter is; every rank must call it."""
    if not hasattr(parameter, "placements"):
        return part
    from torch.distributed.tensor import DTensor

    layout = {"shape": parameter.shape, "stride": parameter.stride()}
    return DTensor.from_local(part, parameter.device_mesh, parameter.placements, **layout).full_tensor()


def scattered(whole: Tensor, parameter: Any) -> Tensor:
    """This rank's part of a whole tensor, on the parameter's device."""
    whole = whole.to(parameter.device)
    if not hasattr(parameter, "placements"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, parameter.device_mesh, parameter.placements).to_local()


def write_tensors(tensors: dict[str, Tensor], folder: Path, name: str) -> None:
    """Writes one file beside a checkpoint's own."""
    from safetensors.torch import save_file

    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
