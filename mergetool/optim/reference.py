"""The reference: τ_s = θ_s − θ_b by parameter name, read where and when the optimizer asks for it.

A reference never holds a tensor that it was not asked for, and a rank asks for its own entries alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from mergetool.architecture.match import match
from mergetool.checkpoint.header import read_header
from mergetool.checkpoint.in_form import in_form_of
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.open import layout_of
from mergetool.checkpoint.place import Directory
from mergetool.checkpoint.weights import InFiles
from mergetool.errors import CheckpointError, RecipeError
from mergetool.hub.references import local_directory
from mergetool.optim.deltas import Delta, stored
from mergetool.optim.sharding import Shard
from mergetool.optim.weights import InMemory, Weights

Storage = Literal["memory", "cpu", "mmap"]
Missing = Literal["refuse", "zero"]


class Reference:
    """τ_s (or, for OnLinear, θ_s) by parameter name.

    Args:
        tensors: canonical parameter name → τ of the parameter's shape (θ_s for OnLinear); any floating type. A rank
            under FSDP reads its own slice of them.
        missing: ``"refuse"``: every trained parameter must be in the reference; ``"zero"``: one that is not is
            trained with τ = 0 (a new value head, say).

    Raises:
        CheckpointError: from `check`, which the optimizers call with their parameters' names and shapes.

    Source: [OMO] Lu et al. 2024, arXiv 2405.17931, §3.2: τ_r = θ_r − θ_b.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], *, missing: Missing = "refuse") -> None:
        self._setup(InMemory(tensors), None, "the reference", "memory", None, missing)

    def _setup(
        self,
        top: Weights,
        bottom: Weights | None,
        label: str,
        storage: Storage,
        dtype: torch.dtype | None,
        missing: Missing,
    ) -> None:
        if storage not in ("memory", "cpu", "mmap"):
            raise RecipeError(f"storage is '{storage}'", "known: memory, cpu, mmap")
        if missing not in ("refuse", "zero"):
            raise RecipeError(f"missing is '{missing}'", "known: refuse, zero")
        self._top, self._bottom = top, bottom
        self.label, self.dtype = label, dtype
        self.storage: Storage = storage
        self.missing: Missing = missing
        self.paths: tuple[Path | None, Path] | None = None
        self.adapter = False

    @classmethod
    def from_checkpoints(
        cls,
        base: str | Path | None,
        sft: str | Path,
        *,
        storage: Storage = "memory",
        dtype: torch.dtype | None = torch.float32,
        missing: Missing = "refuse",
    ) -> Reference:
        """τ_s of two checkpoint directories, of which only headers are read now.

        Args:
            base: θ_b; None for θ_s itself, which is what OnLinear takes.
            sft: θ_s. Either is a directory, or a Hub id, which is fetched now. FP8 and compressed-tensors are read as the
                numbers that they stand for.
            storage: ``"memory"``: a parameter's τ is computed once and kept on its device; ``"cpu"``: kept on the
                CPU; ``"mmap"``: never kept, computed from the mapped files at the entries asked for, at no anonymous
                memory.
            dtype: type that ``memory`` and ``cpu`` keep τ in. fp32 holds the difference of bf16 weights exactly;
                bf16 halves the memory and rounds τ to 8 bits.
            missing: as in the class.

        Raises:
            CheckpointError: a checkpoint cannot be read, or the two do not match.
        """
        below = None if base is None else layout_of(Directory(local_directory(base)))
        return cls._of_layouts(below, layout_of(Directory(local_directory(sft))), storage, dtype, missing)

    @classmethod
    def _of_layouts(
        cls, base: Layout | None, sft: Layout, storage: Storage, dtype: torch.dtype | None, missing: Missing
    ) -> Reference:
        base = None if base is None else in_form_of(base, sft)
        stands_for = match([sft, base]).stands_for[1] if base is not None else None
        top, bottom = InFiles(sft), None if base is None else InFiles(base, stands_for)
        self = cls.__new__(cls)
        self._setup(top, bottom, str(sft.directory), storage, dtype, missing)
        self.paths = (None if base is None else base.directory, sft.directory)
        return self

    @classmethod
    def from_adapter(cls, sft: str | Path, *, missing: Missing = "refuse") -> Reference:
        """τ_s in adapter space, for LoRA adapters that start from an SFT that is itself an adapter.

        The base model, written in the SFT adapter's own coordinates, is (A_s, B = 0). So τ_A = 0 and τ_B = B_s, and
        adding α·τ moves the weights by α·B_s·A_s, which is α times the SFT delta, as long as A is near A_s.

        Args:
            sft: a PEFT adapter directory (adapter_model.safetensors): the SFT adapter, or a low-rank extraction of
                SFT − base.
            missing: as in the class.

        Raises:
            CheckpointError: the directory holds no adapter, or one that is not plain LoRA.
        """
        directory = Path(sft)
        file = directory / "adapter_model.safetensors"
        tensors, identity = read_header(file)
        layout = Layout(directory, {}, {adapter_name(n): t for n, t in tensors.items()}, {file.name: identity})
        other = [n for n in layout.tensors if not n.endswith((".lora_A.weight", ".lora_B.weight"))]
        other = [n for n in other if not n.endswith((".lora_embedding_A", ".lora_embedding_B"))]
        if other:
            raise CheckpointError(
                f"{directory}: is not a plain LoRA adapter: it has {_listing(other)}",
                "merge the adapter into its base (merge_and_unload), save both, and use Reference.from_checkpoints",
            )
        self = cls.__new__(cls)
        self._setup(InFiles(layout), None, str(directory), "memory", None, missing)
        self.paths = (None, directory)
        self.adapter = True
        return self

    def points(self) -> Reference:
        """The same reference giving θ_s in place of θ_s − θ_b (what OnLinear mixes with)."""
        if self._bottom is None or self.paths is None:
            return self
        return Reference.from_checkpoints(None, self.paths[1], storage=self.storage, dtype=self.dtype, missing=self.missing)

    def __deepcopy__(self, memo: dict[int, object]) -> Reference:
        return self  # nothing in it changes

    def __reduce__(self) -> tuple[object, ...]:
        if self.paths is not None and self.adapter:
            return partial(Reference.from_adapter, self.paths[1], missing=self.missing), ()
        if self.paths is not None:
            options = {"storage": self.storage, "dtype": self.dtype, "missing": self.missing}
            return partial(Reference.from_checkpoints, *self.paths, **options), ()
        assert isinstance(self._top, InMemory)  # all others have paths
        return partial(Reference, self._top.tensors, missing=self.missing), ()

    def stored_name(self, name: str) -> str | None:
        """The reference's own name of the parameter `name` (canonical), None where it has none."""
        found = self._top.find(adapter_name(name) if self.adapter else name)
        below = found is not None and (self._bottom is None or self._bottom.find(found) is not None)
        return found if below else None

    def check(self, parameters: Iterable[tuple[str, tuple[int, ...]]]) -> None:
        """Refuse parameters that the reference lacks or holds in another shape.

        Args:
            parameters: (canonical name, whole shape) of every trained parameter.

        Raises:
            CheckpointError: lists all of them.
        """
        absent, unlike = [], []
        taken: dict[str, str] = {}
        for name, shape in parameters:
            found = self.stored_name(name)
            if found is not None and taken.setdefault(found, name) != name:
                unlike.append(f"{name} and {taken[found]} (one tied tensor, {found}, there)")
            elif found is None:
                absent.append(name)
            elif self._top.shape(found) != tuple(shape):
                unlike.append(f"{name} ({list(shape)}, there {list(self._top.shape(found))})")
        if absent and self.missing == "refuse":
            if any(".lora_" in name for name in absent) and not self.adapter:
                raise CheckpointError(
                    f"the trained parameters are LoRA adapters and {self.label} is a full model",
                    "give Reference.from_adapter(SFT_ADAPTER) (an SFT adapter or a low-rank extraction of SFT − base, "
                    "from which training starts), or train full weights",
                )
            raise CheckpointError(
                f"{self.label} lacks {_listing(absent)}",
                "take the checkpoint that training started from, or missing='zero' to train these without a delta",
            )
        if unlike:
            raise CheckpointError(
                f"{self.label} does not fit: {_listing(unlike)}",
                "take checkpoints of the trained model; pad or resize vocabularies in both beforehand",
            )

    def delta(self, name: str, shard: Shard, device: torch.device) -> Delta | None:
        """This rank's part of τ for one parameter; None where the reference has none.

        Args:
            name: canonical.
            shard: what the rank holds of the parameter.
            device: where the optimizer wants the entries.
        """
        found = self.stored_name(name)
        if found is None or (self.adapter and ".lora_B" not in found and not found.endswith("lora_embedding_B")):
            return None
        if self.storage == "mmap" or (self._bottom is None and self._top.in_memory):
            if shard.in_one_run and device.type == "cpu":
                return stored(*self._operands(found, shard, 0, shard.held))
            return Delta(
                shard.held,
                lambda start, stop: self._block(found, shard, start, stop, device),
                lambda index: self._take(found, shard, index, device),
                operands=(lambda a, b: self._operands(found, shard, a, b, device)) if shard.in_one_run else None,
            )
        kept = torch.empty(shard.held, dtype=self.dtype or torch.float32)
        for start in range(0, shard.held, 1 << 20):
            stop = min(start + (1 << 20), shard.held)
            kept[start:stop] = self._block(found, shard, start, stop, torch.device("cpu"))
        if self.storage == "memory":
            kept = kept.to(device)
        elif device.type == "cuda":
            kept = kept.pin_memory()
        if kept.device == device:
            return stored(kept, None)
        return Delta(
            shard.held,
            lambda start, stop: kept[start:stop].to(device, torch.float32, non_blocking=True),
            lambda index: kept[index.to(kept.device)].to(device, torch.float32),
            operands=lambda start, stop: (kept[start:stop].to(device), None),
        )

    def _block(self, name: str, shard: Shard, start: int, stop: int, device: torch.device) -> torch.Tensor:
        parts = [self._span(name, at, at + b - a) for a, b, at in shard.spans(start, stop)]
        return (parts[0] if len(parts) == 1 else torch.cat([torch.empty(0), *parts])).to(device)

    def _operands(
        self, name: str, shard: Shard, start: int, stop: int, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """θ_s and θ_b as they are stored, for a shard that is one run of the tensor."""
        at = shard.first + start
        top = self._top.part(name, at, at + stop - start).to(device)
        if self._bottom is None:
            return top, None
        return top, self._bottom.part(self._below(name), at, at + stop - start).to(device)

    def _span(self, name: str, start: int, stop: int) -> torch.Tensor:
        top = self._top.part(name, start, stop).float()
        if self._bottom is None:
            return top
        return top - self._bottom.part(self._below(name), start, stop).float()

    def _take(self, name: str, shard: Shard, index: torch.Tensor, device: torch.device) -> torch.Tensor:
        places = torch.from_numpy(shard.to_global(index.cpu().numpy()))
        top = self._top.at(name, places).float()
        if self._bottom is not None:
            top = top - self._bottom.at(self._below(name), places).float()
        return top.to(device)

    def _below(self, found: str) -> str:
        """What the base calls a weight of θ_s."""
        below = None if self._bottom is None else self._bottom.find(found)
        assert below is not None  # the two match
        return below


def adapter_name(name: str) -> str:
    """PEFT's parameter name as its files have it: without ``base_model.model.`` and without the adapter's own name."""
    while name.startswith("base_model.model."):
        name = name.removeprefix("base_model.model.")
    parts = name.split(".")
    for kind in ("lora_A", "lora_B"):
        if kind in parts and len(parts) - parts.index(kind) == 3:
            del parts[parts.index(kind) + 1]
    for kind in ("lora_embedding_A", "lora_embedding_B"):
        if kind in parts:
            parts = parts[: parts.index(kind) + 1]
    return ".".join(parts)


def _listing(items: list[str], most: int = 12) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
