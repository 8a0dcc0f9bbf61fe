"""adapter_config.json: which features of PEFT an adapter uses. Those that are read are allowed by name, all others refused.

Source: peft 0.21.2, tuners/lora/config.py; its `update_layer` for the scale, and its `*_init` for what a base loses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mergetool.checkpoint.adapter import Principal
from mergetool.errors import CheckpointError

_MERGE = "merge it with PEFT first: PeftModel.merge_and_unload()"
_CONVERT = "convert it where it was trained: save_pretrained(OUT, path_initial_model_for_weight_conversion=THE INITIAL ADAPTER)"

# What an adapter was trained with, or which layers it has, which its tensors say as well.
_OF_THE_TRAINING = frozenset(
    {
        "peft_type", "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "peft_version",
        "target_modules", "exclude_modules", "lora_dropout", "modules_to_save", "layers_to_transform", "layers_pattern",
        "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config",
        "qalora_group_size", "runtime_config", "merge_weights", "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr",
    }
)  # fmt: skip
_READ = frozenset(
    {
        "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias", "init_lora_weights",
        "use_dora", "lora_bias", "trainable_token_indices", "target_parameters", "ensure_weight_tying",
    }
)  # fmt: skip

_BIASES = ("none", "all", "lora_only")
# Initialisations that leave the base as it is, and those that take a part out of it which can be found again.
_LEAVES = (True, None, False, "gaussian", "eva", "orthogonal", "mica")
_TAKES: dict[str, Principal] = {"pissa": "pissa", "olora": "olora"}
_LOST = {
    "corda": ("CorDA", "the base's principal part is known to its training alone"),
    "lora_ga": ("LoRA-GA", "what it took out of the base is known to its training alone"),
    "loftq": ("LoftQ", "its base is a quantised one"),
}


_NUMBER, _NUMBERS, _NAMES, _ROWS = "a number", "patterns of layers and numbers", "names", "rows, or rows by layer"
_TYPES = {
    "r": _NUMBER,
    "lora_alpha": _NUMBER,
    "rank_pattern": _NUMBERS,
    "alpha_pattern": _NUMBERS,
    "target_parameters": _NAMES,
    "trainable_token_indices": _ROWS,
}


def _fits(value: Any, wanted: str) -> bool:
    """Whether a value of adapter_config.json can be what its key stands for; null can."""
    if value is None:
        return True
    if wanted == _NUMBER:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
    if wanted == _NUMBERS:
        return isinstance(value, dict) and all(_is_pattern(key) and _fits(one, _NUMBER) for key, one in value.items())
    if wanted == _NAMES:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    lists = value.values() if isinstance(value, dict) else [value]
    return all(isinstance(rows, list) and all(type(row) is int and 0 <= row < 1 << 31 for row in rows) for rows in lists)


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return False
    return len(text) < 1000


@dataclass(frozen=True)
class AdapterConfig:
    """An adapter's configuration, every feature of which is known here.

    Args:
        values: adapter_config.json.
        called: what messages call the adapter.

    Raises:
        CheckpointError: it is no LoRA, or has a feature that is not read here; by name.
    """

    values: Mapping[str, Any]
    called: str

    def __post_init__(self) -> None:
        for key, wanted in _TYPES.items():
            if not _fits(value := self.values.get(key), wanted):
                raise CheckpointError(
                    f"{self.called}: its {key} is {str(value)[:60]!r}, not {wanted}", "correct adapter_config.json"
                )
        kind = self.values.get("peft_type")
        if kind != "LORA":
            self._refuse(f"of kind {kind}")
        for key, value in self.values.items():
            if key not in _READ | _OF_THE_TRAINING and value not in (None, False, [], {}, ""):
                self._refuse(f"with {key}", f"{_MERGE}; or take {key} out of adapter_config.json if it changes no weight")
        if (bias := self.values.get("bias", "none")) not in _BIASES:
            self._refuse(f"with bias: {bias}")
        initial = self.values.get("init_lora_weights")
        if isinstance(initial, str) and initial.lower() in _LOST:
            name, why = _LOST[initial.lower()]
            self._refuse(f"of {name}, unconverted ({why}),", _CONVERT)
        if isinstance(initial, str) and initial.startswith("pissa_niter"):
            self._refuse("of PiSSA by a random decomposition, unconverted (PEFT takes another base at each load),", _CONVERT)
        if initial not in _LEAVES and str(initial).lower() not in _TAKES:
            self._refuse(f"with init_lora_weights: {initial}")

    def _refuse(self, what: str, hint: str = _MERGE) -> NoReturn:
        raise CheckpointError(f"{self.called}: an adapter {what} cannot be read tensor by tensor", hint)

    @property
    def principal(self) -> Principal | None:
        """What its initialisation took out of the base, which a loader takes out again."""
        return _TAKES.get(str(self.values.get("init_lora_weights")).lower())

    @property
    def dora(self) -> bool:
        """Whether the rows of its sums are given norms of their own."""
        return bool(self.values.get("use_dora"))

    @property
    def tied(self) -> bool:
        """Whether what is tied stays so."""
        return bool(self.values.get("ensure_weight_tying"))

    @property
    def transposed(self) -> bool:
        """What it says of how its layers store their weights; of several kinds of layers, it says one."""
        return bool(self.values.get("fan_in_fan_out"))

    def scale(self, module: str, rank: int) -> float:
        """The factor of B·A in one layer.

        Raises:
            CheckpointError: neither `lora_alpha` nor `alpha_pattern` says it.
        """
        alpha = self.values.get("lora_alpha", 8)  # PEFT's default where the key is absent; null is none, there too
        for pattern, value in (self.values.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        if not isinstance(alpha, (int, float)):
            said = "null" if alpha is None else repr(alpha)
            raise CheckpointError(
                f"{self.called}: its lora_alpha is {said}, so that the scale lora_alpha/r of '{module}' is unknown, "
                "and PEFT does not load it either",
                "write the number that it was trained with into adapter_config.json",
            )
        return alpha / (math.sqrt(rank) if self.values.get("use_rslora") else rank)

    def tokens(self, module: str) -> tuple[int, ...]:
        """The rows of an embedding that were trained for themselves."""
        said = self.values.get("trainable_token_indices") or ()
        if isinstance(said, Mapping):
            said = next((rows for name, rows in said.items() if f".{module}".endswith(f".{name}")), ())
        return tuple(int(row) for row in said)

    def parameters(self, module: str, names: Sequence[str]) -> list[str]:
        """Which of a module's parameters are adapted as such, in the order of its parameters.

        Args:
            module: its name in the live model.
            names: its parameters, in their order.
        """
        targets = self.values.get("target_parameters") or ()
        return [n for n in names if any(f".{module}.{n}".endswith(f".{target}") for target in targets)]
