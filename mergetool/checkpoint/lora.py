"""LoRA adapters as inputs: ``model+adapter`` is read as W + s·B·A, a few rows at a time, and never written out.

Source: Hu et al. 2021, LoRA, arXiv 2106.09685, Eq. 3; rank-stabilised scaling: Kalajdzievski 2023, arXiv 2312.03732.
"""

from __future__ import annotations

import math
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mergetool.checkpoint.adapter import ADAPTER, Adapter, Factors
from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.place import Place, read_json
from mergetool.checkpoint.reader import Reader
from mergetool.checkpoint.targets import Targets
from mergetool.errors import CheckpointError

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"^(.*)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?$")


def with_adapter(base: Layout, place: Place) -> Layout:
    """The layout of a model with a LoRA adapter on top.

    Args:
        base: the model's own layout.
        place: has adapter_config.json and adapter_model.safetensors, as PEFT writes them.

    Raises:
        CheckpointError: the adapter is missing or damaged, is not plain or rank-stabilised LoRA (the kind is named),
            or does not fit the model.
    """
    called = place.name
    config = read_json(place, "adapter_config.json", "an adapter needs its adapter_config.json")
    _refuse_other_kinds(config, called)
    tensors, header = place.headers([ADAPTER])[ADAPTER]
    pairs: dict[tuple[str, bool], dict[str, TensorInfo]] = {}
    replaced: dict[str, TensorInfo] = {}
    targets = Targets(base, called)
    for name, info in tensors.items():
        inner = name.removeprefix(_PREFIX)
        if match := _FACTOR.match(inner):
            pairs.setdefault((match[1], bool(match[2])), {})[match[3]] = info
        else:
            # layers saved whole, and the embedding that PEFT saves beside an adapter of its own
            target = re.sub(r"\.(modules_to_save(\.default)?|base_layer)(?=\.)", "", inner)
            replaced[targets.tensor(target, info.shape)] = info
    factors = {}
    for (module, embedding), pair in pairs.items():
        if set(pair) != {"A", "B"}:
            raise CheckpointError(f"{called}: '{module}' has lora_{next(iter(pair))} alone", "save the adapter again")
        a, b = pair["A"], pair["B"]
        shape = (a.shape[1], b.shape[0]) if embedding else (b.shape[0], a.shape[1])
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
            raise CheckpointError(f"{called}: the factors of '{module}' do not multiply", "save the adapter again")
        factors[targets.tensor(f"{module}.weight", shape)] = Factors(a, b, _scale(config, module, a.shape[0]), embedding)
    if not factors and not replaced:
        raise CheckpointError(f"{called}: the adapter changes nothing", "check that it was saved after training")
    if not config.get("ensure_weight_tying"):
        targets.separate()
    return replace(base, tensors=targets.tensors, adapter=Adapter(place, factors, replaced, header))


def _refuse_other_kinds(config: dict[str, Any], called: str) -> None:
    kind = config.get("peft_type")
    found = None if kind == "LORA" else f"of kind {kind}"
    for key, name in (("use_dora", "DoRA"), ("fan_in_fan_out", "of transposed layers (fan_in_fan_out)")):
        found = found or (name if config.get(key) else None)
    if config.get("bias", "none") != "none":
        found = found or f"with trained biases (bias: {config['bias']})"
    for key in ("alora_invocation_tokens", "target_parameters", "trainable_token_indices"):
        found = found or (f"with {key}" if config.get(key) else None)
    if found:
        raise CheckpointError(
            f"{called}: an adapter {found} cannot be read tensor by tensor",
            "merge it with PEFT first: PeftModel.merge_and_unload()",
        )


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


class AdaptedReader(Reader):
    """A reader that gives the adapted tensors, in fp32: W + s·B·A is not rounded before it is merged."""

    def __init__(self, layout: Layout, base: Reader, places: dict[Path, Path] | None = None) -> None:
        super().__init__(layout, places)
        assert layout.adapter is not None
        self._base = base  # the reader of the model without the adapter
        self._adapter = layout.adapter
        self._own = threading.local()

    def block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Flat elements [start, stop): fp32 where the adapter adds to them, else in the stored dtype."""
        replacement = self._adapter.replaced.get(name)
        base = self._base.block(name, start, stop) if replacement is None else self._flat(replacement, start, stop)
        factors = self._adapter.factors.get(name)
        if factors is None or stop <= start:
            return base
        left, right = self._factors(name, factors)
        columns = right.shape[1]
        first, last = start // columns, -(-stop // columns)
        delta = (left[first:last] @ right).view(-1)[start - first * columns : stop - first * columns]
        return delta.mul_(factors.scale).add_(base)

    def tensor(self, name: str) -> torch.Tensor:
        """The whole adapted tensor."""
        info = self._info(name)
        return self.block(name, 0, info.numel).view(info.shape)

    def release(self, file: Path) -> None:
        """Forget one file; nothing may be reading it."""
        self._base.release(file)
        super().release(file)

    def close(self) -> None:
        """Forget the maps, the base's too."""
        self._base.close()
        super().close()

    def _factors(self, name: str, factors: Factors) -> tuple[torch.Tensor, torch.Tensor]:
        """The pair in fp32, kept while one tensor is walked; one pair a thread."""
        if getattr(self._own, "name", None) != name:
            a = self._flat(factors.a, 0, factors.a.numel).view(factors.a.shape).float()
            b = self._flat(factors.b, 0, factors.b.numel).view(factors.b.shape).float()
            self._own.pair = (a.T.contiguous(), b.T.contiguous()) if factors.embedding else (b, a)
            self._own.name = name
        return self._own.pair
