"""LoRA adapters as inputs: what ``model+adapter`` changes of a model, from headers and configurations alone.

Source: Hu et al. 2021, LoRA, arXiv 2106.09685, Eq. 3; rank-stabilised scaling: Kalajdzievski 2023, arXiv 2312.03732; DoRA:
Liu et al. 2024, arXiv 2402.09353, Eq. 5; PiSSA: Meng et al. 2024, arXiv 2404.02948; OLoRA: Büyükakyüz 2024, arXiv 2406.01775.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from math import prod

from mergetool.architecture.fused import Piece, Runs
from mergetool.checkpoint.adapter import ADAPTER, PICKLED_ADAPTER, Adapter, Change, Factors
from mergetool.checkpoint.adapter_config import AdapterConfig
from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.layout import Layout, recognised
from mergetool.checkpoint.place import Place, read_json
from mergetool.checkpoint.targets import Targets
from mergetool.errors import CheckpointError

_PREFIX = "base_model.model."
_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_FACTOR = re.compile(r"^(.*)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?$")
_LORA_BIAS = re.compile(r"^(.*)\.lora_B(?:\.default)?\.bias$")
_MAGNITUDE = re.compile(r"^(.*)\.lora_magnitude_vector(?:\.default)?(?:\.weight)?$")
_TOKENS = re.compile(r"^(.*)\.token_adapter\.trainable_tokens_delta(?:\.default)?$")
_HOLDER = re.compile(r"\.(modules_to_save(\.default)?|base_layer|token_adapter)(?=\.)")
_AGAIN = "save the adapter again"


def with_adapter(base: Layout, place: Place) -> Layout:
    """The layout of a model with a LoRA adapter on top.

    Args:
        base: the model's own layout.
        place: has adapter_config.json and adapter_model.safetensors or .bin, as PEFT writes them.

    Raises:
        CheckpointError: the adapter is missing or damaged, has a feature that is not read here (it is named), or does not
            fit the model.
    """
    if "adapter_config.json" not in place.files() and (known := recognised(place)) is not None:
        raise CheckpointError(f"{place.name}: {known[0]}, not an adapter with its adapter_config.json", known[1])
    config = AdapterConfig(read_json(place, "adapter_config.json", "an adapter needs its adapter_config.json"), place.name)
    files = place.files()
    file = PICKLED_ADAPTER if ADAPTER not in files and PICKLED_ADAPTER in files else ADAPTER
    tensors, header = place.headers([file])[file]
    found = _Found(config, Targets(base, place.name))
    sorted_out = _sorted_out(tensors, config)
    for target, info in sorted_out.whole.items():
        found.change(found.targets.tensor(target, info.shape), replaced=info)
    for (module, embedding), pair in sorted_out.pairs.items():
        found.add_factors(module, embedding, pair, sorted_out.magnitudes.pop(module, None))
    for module, info in sorted_out.biases.items():
        found.add_bias(module, info, sorted_out.pairs[module, False]["A"].shape[0])
    for module, info in sorted_out.rows.items():
        found.add_rows(module, info)
    if sorted_out.magnitudes:
        raise CheckpointError(f"{place.name}: '{next(iter(sorted_out.magnitudes))}' has a magnitude and no factors", _AGAIN)
    if not found.changes:
        raise CheckpointError(f"{place.name}: the adapter changes nothing", "check that it was saved after training")
    if not config.tied:
        found.targets.separate()
    return replace(base, tensors=found.targets.tensors, adapter=Adapter(place, found.changes, found.parts, header, file))


@dataclass
class _SortedOut:
    """An adapter's tensors by what they are: module -> header; `whole` by weight."""

    pairs: dict[tuple[str, bool], dict[str, TensorInfo]] = field(default_factory=dict)
    biases: dict[str, TensorInfo] = field(default_factory=dict)
    magnitudes: dict[str, TensorInfo] = field(default_factory=dict)
    rows: dict[str, TensorInfo] = field(default_factory=dict)
    whole: dict[str, TensorInfo] = field(default_factory=dict)


def _sorted_out(tensors: dict[str, TensorInfo], config: AdapterConfig) -> _SortedOut:
    found = _SortedOut()
    for name, info in tensors.items():
        inner = _WRAPPERS.sub("", name).removeprefix(_PREFIX)
        if match := _FACTOR.match(inner):
            found.pairs.setdefault((match[1], bool(match[2])), {})[match[3]] = info
        elif match := _LORA_BIAS.match(inner):
            found.biases[match[1]] = info
        elif match := _MAGNITUDE.match(inner):
            found.magnitudes[match[1]] = info
        elif match := _TOKENS.match(inner):
            found.rows[match[1]] = info
        elif ".lora_" in inner:
            raise CheckpointError(
                f"{config.called}: holds '{name}', which is no part of a LoRA that is known here",
                "merge it with PEFT first: PeftModel.merge_and_unload()",
            )
        elif ".original_module." not in inner:  # else the base's own
            # layers saved whole, biases, and the embedding that PEFT saves beside an adapter of its own
            found.whole[_HOLDER.sub("", inner)] = info
    for (module, _), pair in found.pairs.items():
        if set(pair) != {"A", "B"}:
            raise CheckpointError(f"{config.called}: '{module}' has lora_{next(iter(pair))} alone", _AGAIN)
        if any(not info.numel or len(info.shape) < 2 for info in pair.values()):
            raise CheckpointError(
                f"{config.called}: the factors of '{module}' are empty",
                "save the adapter again: the shards of its training were not gathered",
            )
    if lost := next((module for module in found.biases if (module, False) not in found.pairs), None):
        raise CheckpointError(f"{config.called}: '{lost}' has a bias and no factors", _AGAIN)
    if config.dora and (without := next((m for m, _ in found.pairs if m not in found.magnitudes), None)):
        raise CheckpointError(f"{config.called}: use_dora is set, and '{without}' has no magnitude", _AGAIN)
    return found


class _Found:
    """The changes that an adapter makes, put together weight by weight."""

    def __init__(self, config: AdapterConfig, targets: Targets) -> None:
        self._config, self.targets = config, targets
        self.changes: dict[str, Change] = {}
        self.parts: dict[str, tuple[str, Runs]] = {}

    def change(self, name: str, **fields: object) -> None:
        known = self.changes.get(name) or Change(self.targets.tensors[name].shape)
        self.changes[name] = replace(known, **fields)

    def add_factors(self, module: str, embedding: bool, pair: dict[str, TensorInfo], magnitude: TensorInfo | None) -> None:
        """What B·A changes, and how."""
        a, b = pair["A"], pair["B"]
        if (weight := self._parameter(module)) is not None:
            self._add_to_parameter(weight, a, b, magnitude)
            return
        rank, columns, rows = a.shape[0], prod(a.shape[1:]), b.shape[0]
        if rank != prod(b.shape[1:]):
            raise CheckpointError(f"{self._config.called}: the factors of '{module}' do not multiply", _AGAIN)
        weight = f"{module}.weight"
        transposed = embedding or self._transposed(module, (rows, columns), self.targets.shape(weight))
        shape = (columns, rows) if transposed else (rows, *a.shape[1:])
        name = self.targets.tensor(weight, shape)
        taken = None if embedding or name in self.changes else self._config.principal  # a base that is saved has lost it
        factors = Factors(a, b, self._config.scale(module, rank), transposed)
        self.change(name, factors=factors, principal=taken, magnitude=magnitude)

    def _transposed(self, module: str, plain: tuple[int, int], stored: tuple[int, ...]) -> bool:
        """Whether a layer stores its weight as (in, out): PEFT asks the live layer, and so must be asked where it is square."""
        if len(stored) != 2 or (stored == plain and plain[0] != plain[1]) or stored != plain[::-1]:
            return False
        live = self.targets.module(module)
        return self._config.transposed if live is None else type(live).__name__ == "Conv1D"

    def _parameter(self, module: str) -> str | None:
        """The weight that a module's factors adapt where `target_parameters` names it: PEFT wraps the module once for each."""
        if not self._config.values.get("target_parameters"):
            return None
        outer, depth = re.subn(r"\.base_layer(?=\.|$)", "", module)
        live = self.targets.module(outer)
        if live is None:
            raise CheckpointError(
                f"{self._config.called}: has target_parameters, of a model that transformers cannot make",
                "merge it with PEFT first: PeftModel.merge_and_unload()",
            )
        names = self._config.parameters(outer, [name for name, _ in live.named_parameters(recurse=False)])
        return f"{outer}.{names[-1 - depth]}" if depth < len(names) else None

    def _add_to_parameter(self, weight: str, a: TensorInfo, b: TensorInfo, magnitude: TensorInfo | None) -> None:
        shape = self.targets.shape(weight)
        called, module = self._config.called, weight.rpartition(".")[0]
        if magnitude is not None or self._config.principal is not None or len(shape) not in (2, 3):
            raise CheckpointError(f"{called}: adapts '{weight}' in a way that PEFT does not know", _AGAIN)
        experts = shape[0] if len(shape) == 3 else 1
        transposed = experts > 1 and bool(getattr(self.targets.module(module), "is_transposed", False))
        rows, columns = (shape[-1], shape[-2]) if transposed else shape[-2:]
        rank, left = divmod(a.shape[0], experts)
        if left or a.shape[1:] != (columns,) or b.shape != (rows, a.shape[0]):
            raise CheckpointError(
                f"{called}: the factors of '{weight}' are {list(a.shape)} and {list(b.shape)}, and it is {list(shape)}",
                "use the adapter's own base model",
            )
        factors = Factors(a, b, self._config.scale(weight, rank), transposed, experts)
        if self.targets.find(weight) is not None:
            self.change(self.targets.tensor(weight, shape), factors=factors)
            return
        self.changes[weight] = Change(shape, factors=factors)
        held: dict[str, list[Piece]] = {}
        for piece in self.targets.runs(weight):
            held.setdefault(piece.name, []).append(piece)
        self.parts |= {name: (weight, tuple(pieces)) for name, pieces in held.items()}

    def add_bias(self, module: str, info: TensorInfo, rank: int) -> None:
        """The bias of B, which is added with the factor of B·A."""
        name = self.targets.tensor(f"{module}.bias", info.shape)
        self.change(name, added=(info, self._config.scale(module, rank)))

    def add_rows(self, module: str, info: TensorInfo) -> None:
        """Rows of an embedding; what is tied to it follows."""
        rows = self._config.tokens(module)
        shape = self.targets.shape(f"{module}.weight")
        if len(rows) != info.shape[0] or info.shape[1:] != shape[1:] or max(rows, default=0) >= shape[0]:
            raise CheckpointError(
                f"{self._config.called}: '{module}' has {info.shape[0]} trained rows, and trainable_token_indices {len(rows)} "
                f"of {shape[0]}",
                _AGAIN,
            )
        self.change(self.targets.tensor(f"{module}.weight", shape, alone=False), rows=(info, rows))
