"""Steps that leave the likelihood of rows that should stay as it is, to first order: what lies along the rows' gradients is
taken from the alignment's gradient, or from Adam's update.

Source: [OGPSA] arXiv 2602.07892.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.activations.answers import batch_of, nll
from mergetool.align.recipe import AlignRecipe
from mergetool.align.report import Report
from mergetool.align.stay import Stay
from mergetool.data.tokens import Coded
from mergetool.errors import DataError, RecipeError

if TYPE_CHECKING:
    import torch

    from mergetool.ops.span import Span, Vector

EVERY = 5
_BASIS = "row_gradients.safetensors"


@dataclass(frozen=True)
class Projection:
    """What a recipe asks for.

    Attributes:
        sets: sources of `rows`; each gives one gradient.
        every: optimizer steps from one computation of the gradients to the next.
        update: whether Adam's update is projected, in place of the gradient that it reads.
        bytes: what is held beside the model, its gradient and Adam's moments.
    """

    sets: int
    every: int
    update: bool
    bytes: int


def projection(recipe: AlignRecipe, parameters: int) -> Projection | None:
    """What a recipe asks for, of a model of so many parameters; None where its method projects no gradients of rows.

    Raises:
        RecipeError: its settings do not go together.
    """
    merging = recipe.merging
    if merging.baseline is None or not merging.baseline.gradients or merging.rows is None:
        return None
    every = EVERY if merging.every is None else merging.every
    if not isinstance(every, int):
        raise RecipeError(
            f"merging.every: {merging.method} computes the rows' gradients at every so many steps, and '{every}' is no number",
            f"give one, such as {EVERY}",
        )
    update = merging.project == "update"
    if update and recipe.dtype == "bfloat16":
        raise RecipeError(
            "merging.project: update is exact in float32 alone, and dtype: bfloat16 rounds it away",
            "set dtype: float32, or project: gradient",
        )
    sets = len(merging.rows.names)
    return Projection(sets, every, update, 4 * parameters * (sets + update))


def row_gradients(recipe: AlignRecipe, config: Any, model: Any, stay: Stay | None, report: Report) -> Any:
    """The trainer's callback that projects, or None where the recipe's method does not.

    Args:
        recipe, config: the recipe, and TRL's config made of it.
        model: the one that is trained.
        stay: the rows that should stay.
        report: told once how much is held for it.

    Raises:
        DataError: a source has no row that can be used.
        RecipeError: see `projection`.
    """
    asked = projection(recipe, sum(p.numel() for p in model.parameters() if p.requires_grad))
    if asked is None or stay is None or recipe.merging.rows is None:
        return None
    for name, rows in zip(recipe.merging.rows.names, stay.sets, strict=True):
        if not rows:
            raise DataError(
                f"merging.rows: {name}: no row has a token of an answer within the length",
                "raise merging.rows.max_length, or leave this source out",
            )
    size = recipe.merging.batch_size or config.per_device_train_batch_size
    return _callback_class()(recipe.merging.method, asked, stay.sets, size, report)


def mean_gradient(
    model: Any, named: Mapping[str, torch.Tensor], rows: Sequence[Coded], size: int, rank: int = 0, ranks: int = 1
) -> dict[str, torch.Tensor]:
    """The gradient of the mean negative log-likelihood over the scored tokens of all rows, at the weights as they are.

    Args:
        model: in the mode in which it is to be differentiated, not wrapped; the `grad` of its parameters stays as it is.
        named: its parameters.
        rows: one reference set.
        size: rows of a batch.
        rank, ranks: which process this is, of how many; each takes its share of the batches, and all get the sum.

    Returns:
        Name -> fp32, flat; 0 where no row uses a parameter.
    """
    import torch

    device = next(iter(named.values())).device
    found = {name: torch.zeros(p.numel(), dtype=torch.float32, device=p.device) for name, p in named.items()}
    for start in range(rank * size, len(rows), ranks * size):
        batch = batch_of(rows[start : start + size]).to(device)
        gradients = torch.autograd.grad(nll(model, batch), list(named.values()), allow_unused=True)
        for name, gradient in zip(named, gradients, strict=True):
            if gradient is not None:  # an expert that no token of the rows was sent to
                found[name].add_(gradient.reshape(-1))
    tokens = sum(row.length for row in rows)
    for total in found.values():
        if ranks > 1:
            torch.distributed.all_reduce(total)
        total.div_(tokens)
    return found


@functools.cache
def _callback_class() -> type:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import TrainerCallback

    from mergetool.ops.span import Span, inner
    from mergetool.optim.sharding import local

    class RowGradients(TrainerCallback):
        """Computes U, the orthonormal basis of the sets' gradients, at every K-th step, and takes U U^T x from each step's x.

        x is the gradient that Adam reads, after clipping, or Adam's update theta_new - (1 - lr * decay) * theta. Weight decay
        is not projected. U is a function of the weights at its last computation, so it travels with the checkpoints that lie
        between two.

        Attributes:
            span: U; None before the first step.
            computed: how often U was computed by this process.
        """

        def __init__(self, name: str, asked: Projection, sets: Sequence[Sequence[Coded]], size: int, report: Report) -> None:
            self.name, self.asked, self.sets, self.size, self.report = name, asked, sets, size, report
            self.span: Span | None = None
            self.computed = 0
            self._before: dict[str, torch.Tensor] = {}
            self._taken: list[float] = []

        def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Refuses what shards the weights."""
            from accelerate.state import AcceleratorState
            from accelerate.utils import DistributedType

            kind = AcceleratorState().distributed_type
            if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
                raise RecipeError(
                    f"merging.method: {self.name} differentiates the whole model on every process, and {kind.value} shards it",
                    "run it in one process or under DDP",
                )

        def on_train_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
        ) -> None:
            """Hooks into the optimizer; in a resumed run U comes from the checkpoint."""
            if state.global_step % self.asked.every:
                self._load(Path(args.output_dir) / f"checkpoint-{state.global_step}" / _BASIS, args.device)
            optimizer = getattr(optimizer, "optimizer", optimizer)
            if self.asked.update:
                optimizer.register_step_pre_hook(self._remember)
                optimizer.register_step_post_hook(self._project_update)
            else:
                optimizer.register_step_pre_hook(self._project_gradient)
            self.report("row_gradients", asdict(self.asked))

        def on_pre_optimizer_step(
            self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
        ) -> None:
            """Computes U where it is time."""
            if state.global_step % self.asked.every:
                return
            self.span = None  # its memory is that of the next one
            named, training = _named(optimizer), model.training
            model.eval()
            share = (self.size, args.process_index, args.world_size)
            gradients = [mean_gradient(model, named, rows, *share) for rows in self.sets]
            model.train(training)
            try:
                self.span = Span.of(gradients)
            except ValueError:
                raise RecipeError(
                    f"training: a gradient of {self.name}'s rows is no number at step {state.global_step + 1}",
                    "lower training.learning_rate, or train in float32; the last checkpoint is kept",
                ) from None
            self.computed += 1

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Beside the trainer's own files, unless the next step computes it anew."""
            if state.is_world_process_zero and self.span is not None and state.global_step % self.asked.every:
                vectors = {f"{i}/{name}": u for i, one in enumerate(self.span.basis) for name, u in one.items()}
                save_file(vectors, Path(args.output_dir) / f"checkpoint-{state.global_step}" / _BASIS)

        def logged(self) -> dict[str, float]:
            """`projected`: the share of the squared length of x that was taken, the mean since it was last logged."""
            taken, self._taken = self._taken, []
            return {"projected": sum(taken) / len(taken)} if taken else {}

        def _load(self, file: Path, device: Any) -> None:
            basis: dict[int, dict[str, torch.Tensor]] = {}
            for key, u in load_file(file, device=str(device)).items():
                number, _, name = key.partition("/")
                basis.setdefault(int(number), {})[name] = u
            self.span = Span([basis[number] for number in sorted(basis)])

        @torch.no_grad()
        def _project_gradient(self, optimizer: Any, *_: Any) -> None:
            named = _named(optimizer)
            for name, p in named.items():
                if p.grad is None and any(bool(one[name].any()) for one in self._basis):
                    p.grad = torch.zeros_like(p)  # the alignment does not use it, and the rows do
            gradient = {name: local(p.grad) for name, p in named.items() if p.grad is not None}
            self._subtract(gradient, gradient)

        @torch.no_grad()
        def _remember(self, optimizer: Any, *_: Any) -> None:
            """The weights as decay alone leaves them."""
            for group in optimizer.param_groups:
                kept = 1 - float(group["lr"]) * group["weight_decay"]
                for name, p in zip(group["param_names"], group["params"], strict=True):
                    before = local(p).clone()
                    self._before[name] = before if p.grad is None else before.mul_(kept)

        @torch.no_grad()
        def _project_update(self, optimizer: Any, *_: Any) -> None:
            theta = {name: local(p) for name, p in _named(optimizer).items()}
            update = {name: self._before[name].neg_().add_(now) for name, now in theta.items()}
            self._subtract(update, theta)
            self._before = {}

        @property
        def _basis(self) -> Sequence[Vector]:
            assert self.span is not None  # it is computed before the first step
            return self.span.basis

        def _subtract(self, x: Vector, entries: Vector) -> None:
            """Takes U U^T x from `entries`."""
            assert self.span is not None  # it is computed before the first step
            coordinates, square = self.span.coordinates(x), inner(x, x)
            self.span.subtract(entries, coordinates)
            self._taken.append(sum(c * c for c in coordinates) / square if square else 0.0)

    return RowGradients


def _named(optimizer: Any) -> dict[str, Any]:
    """The parameters that an optimizer moves, by name."""
    groups = getattr(optimizer, "optimizer", optimizer).param_groups
    return {name: p for group in groups for name, p in zip(group["param_names"], group["params"], strict=True)}
