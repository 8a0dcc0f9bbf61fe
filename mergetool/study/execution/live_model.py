"""One model in memory that the weights of every candidate are put into, so that a candidate costs its evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mergetool.architecture.fused import Piece
from mergetool.errors import CheckpointError

HINT = "a study compares models of one architecture"


class LiveModel:
    """A transformers model whose parameters are overwritten in place.

    Candidates must have the architecture of the model it was made from. Weights arrive in the type that a merged
    checkpoint would have on disk and are widened to the model's own: what is measured is what would be written.

    Args:
        source: the checkpoint to start from; a directory or a Hub id.
        device, dtype: as `mergetool.hub.loading.load_model`.
    """

    def __init__(self, source: Path | str, device: str | None = None, dtype: str | None = None) -> None:
        from mergetool.hub.loading import load_model

        self.model = load_model(source, device, dtype)
        self._targets = self.model.state_dict()
        shared: dict[tuple, list[str]] = {}
        for name, tensor in self._targets.items():
            shared.setdefault((tensor.data_ptr(), tuple(tensor.shape)), []).append(name)
        self._twins = list(shared.values())
        self._twin = {name: names[0] for names in self._twins for name in names}
        self._source, self._reading = source, None
        self._parts: dict[str, list[tuple[str, Piece]]] = {}

    def put(self, tensors: Iterable[tuple[str, Any]], where: str) -> None:
        """Overwrites every weight.

        Args:
            tensors: (name, tensor) as a checkpoint names them.
            where: what to call the candidate in an error.

        Raises:
            CheckpointError: a name or a shape that the model does not have, or a weight that never came.
        """
        import torch

        filled: dict[str, int] = {}
        with torch.no_grad():
            for name, tensor in tensors:
                for weight, run in self._runs(name, tensor, where):
                    target, first = self._targets[weight].view(-1)[run.at : run.at + run.numel], self._twin[weight]
                    values = tensor.reshape(-1)[run.start : run.start + run.numel]
                    done = filled.get(first, 0)
                    if done >= self._targets[weight].numel():
                        if not torch.equal(target, values.to(target)):
                            raise CheckpointError(f"{where}: '{name}' differs from '{first}', to which the model ties it", HINT)
                        continue
                    target.copy_(values)
                    filled[first] = done + run.numel
        # a tied weight is on disk once and in the model under several names
        missing = [names[0] for names in self._twins if filled.get(names[0], 0) < self._targets[names[0]].numel()]
        if missing:
            raise CheckpointError(f"{where}: no tensor '{missing[0]}' ({len(missing)} missing)", HINT)

    def _runs(self, name: str, tensor: Any, where: str) -> list[tuple[str, Piece]]:
        """The weights that a tensor on disk goes into, and where; none for one that no loader needs."""
        found = name if name in self._targets else self._elsewhere(name)
        if isinstance(found, list):
            return found
        target = self._targets.get(found or name)
        if target is None:
            raise CheckpointError(f"{where}: the model has no tensor '{name}'", HINT)
        if target.shape != tensor.shape:
            raise CheckpointError(
                f"{where}: tensor '{name}' is {tuple(tensor.shape)}, the model's is {tuple(target.shape)}", HINT
            )
        return [(found or name, Piece(0, name, 0, target.numel()))]

    def _elsewhere(self, name: str) -> str | list[tuple[str, Piece]] | None:
        """What a tensor is that the live model has another name for: a weight, or parts of some; None where nobody knows."""
        from mergetool.architecture.reading import live_name, reading_of
        from mergetool.hub.references import open_layout

        if self._reading is None:
            self._reading = reading_of(open_layout(self._source))
            if self._reading is None:
                return None
            for weight in self._reading.fused:
                for run in self._reading.runs(weight) or ():
                    self._parts.setdefault(run.name, []).append((weight, run))
        if name in self._parts:
            return self._parts[name]
        weight = live_name(self._reading.skeleton, name)
        return weight if weight in self._targets else []

    def put_checkpoint(self, source: Path | str) -> None:
        """Overwrites every weight with a checkpoint's.

        Raises:
            CheckpointError: it is damaged or of another architecture.
        """
        from mergetool.checkpoint.open import layout_of, open_reader
        from mergetool.checkpoint.place import Directory
        from mergetool.hub.references import local_directory

        layout = layout_of(Directory(local_directory(source)))
        with open_reader(layout) as reader:
            self.put(((name, reader.tensor(name)) for name in layout.tensors), str(source))

    def distance_from(self, source: Path | str) -> float:
        """Norm of the difference between the weights that are in the model now and a checkpoint's.

        Raises:
            CheckpointError: the checkpoint is damaged or of another architecture.
        """
        import torch

        from mergetool.checkpoint.open import layout_of, open_reader
        from mergetool.checkpoint.place import Directory
        from mergetool.hub.references import local_directory

        layout, square = layout_of(Directory(local_directory(source))), 0.0
        with open_reader(layout) as reader, torch.no_grad():
            for name in layout.tensors:
                tensor = reader.tensor(name)
                for weight, run in self._runs(name, tensor, str(source)):
                    target = self._targets[weight].view(-1)[run.at : run.at + run.numel]
                    away = target.float() - tensor.reshape(-1)[run.start : run.start + run.numel].to(target.device).float()
                    square += float(away.square().sum(dtype=torch.float64))
        return square**0.5

    def put_merge(self, recipe: dict[str, Any], where: str) -> None:
        """Overwrites every weight with the result of a merge, made tensor by tensor; nothing is written.

        A merge that mergekit has to do goes through a temporary directory.

        Raises:
            MergetoolError: the recipe, or a checkpoint it names, cannot be used.
        """
        import tempfile

        from mergetool.config.strict_yaml import validate
        from mergetool.merge import MergeRecipe, merge_tensors, merge_to_directory, plan_merge

        checked = validate(MergeRecipe, recipe, where)
        plan = plan_merge(checked)
        if plan.engine == "native":
            self.put(merge_tensors(plan), where)
            return
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "merged"
            merge_to_directory(plan, out)
            self.put_checkpoint(out)
