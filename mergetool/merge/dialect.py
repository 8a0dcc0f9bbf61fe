"""Words of recipes as people write them: what mergekit 0.1.5 runs, runs; what it ignores is reported once and left out.

A word that neither program knows stays an error that names the nearest one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mergetool.errors import RecipeError

# Parameters of mergekit's methods, whether the method at hand reads them or not; a test compares them with its registry.
PARAMETERS = frozenset((
    "weight", "density", "gamma", "epsilon", "lambda", "normalize", "int8_mask", "rescale", "t", "scale",
    "select_topk", "filter_wise", "max_iter", "tol", "eps", "r", "alpha", "normalize_weights", "nuslerp_row_wise",
    "nuslerp_flatten", "embed_slerp",
))  # fmt: skip
# Options of mergekit's command line, and words of model cards, that people write at the top of a recipe.
_OPTIONS = frozenset((
    "random_seed", "allow_crimes", "out_shard_size", "copy_tokenizer", "low_cpu_memory", "lazy_unpickle",
    "trust_remote_code", "clone_tensors", "lora_merge_cache", "lora_merge_dtype", "transformers_cache",
    "write_model_card", "safe_serialization", "cuda", "device", "num_threads", "read_to_gpu", "multi_gpu", "quiet",
    "async_write",
))  # fmt: skip
_CARD = frozenset((
    "license", "license_name", "license_link", "language", "tags", "library_name", "pipeline_tag", "datasets",
    "metrics", "model_name", "model-index", "description", "author", "version", "notes", "comment",
))  # fmt: skip
# Words at the top of a recipe that people write under `parameters`, and one of `tokenizer` that they write at the top.
_TOP = frozenset(("dtype", "out_dtype", "tokenizer_source", "chat_template", "base_model", "merge_method"))
_PADDING, _LAYERS, _UNDER = "pad_to_multiple_of", "layer_range", "it belongs under `parameters`"
_TRUTHS = ("normalize", "int8_mask", "rescale", "filter_wise", "normalize_weights", "nuslerp_row_wise", "nuslerp_flatten")


_WHOLE = ("max_iter",)
_SPELLED = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def understood(content: Mapping[str, Any], anchored: frozenset[str] = frozenset()) -> tuple[dict[str, Any], list[str]]:
    """A recipe without the words at its top that nobody reads, and a line on them.

    Args:
        content: as YAML gives it.
        anchored: keys at the top whose values other places take over (``_p: &p``); they are no words of the recipe.

    Raises:
        RecipeError: it is a recipe for another program of mergekit's.
    """
    if "experts" in content and "merge_method" not in content:
        raise RecipeError("a recipe of mergekit-moe, which makes a mixture of several models", "run mergekit-moe on it")
    left = [key for key in content if key in _OPTIONS | _CARD]
    kept = {key: value for key, value in content.items() if key not in left and key not in anchored}
    hint = "; a seed is given as `seed:`" if "random_seed" in left else ""
    lines = [f"{', '.join(left)} in the recipe: not read{hint}"] if left else []
    misplaced: dict[tuple[str, str], dict[str, None]] = {}
    kept = _in_place(kept, "", misplaced)
    lines += [f"{', '.join(words)} {at}: not read there; {belongs}" for (at, belongs), words in misplaced.items()]
    return kept, lines


def _in_place(value: Any, key: str, misplaced: dict[tuple[str, str], dict[str, None]]) -> Any:
    """A recipe without known words that stand where mergekit does not look for them; those go into `misplaced`."""
    if isinstance(value, list) and key in _LISTS:
        return [_in_place(one, key, misplaced) for one in value]
    if not isinstance(value, Mapping):
        return value
    at, words, belongs = _places(key)
    for word in [word for word in value if word in words]:
        misplaced.setdefault((at, belongs(word)), {})[word] = None
    inner = {word: content for word, content in value.items() if word not in words}
    if key == "modules":  # by their names
        return {name: _in_place(module, "module", misplaced) for name, module in inner.items()}
    known = (*_LISTS, "modules", "parameters")
    return {word: _in_place(content, word, misplaced) if word in known else content for word, content in inner.items()}


_LISTS = ("models", "slices", "sources")


def _places(key: str) -> tuple[str, frozenset[str], Callable[[str], str]]:
    """Of a part of a recipe: what it is called, the words that are not read in it, and where such a word belongs."""
    if key == "parameters":
        return "under `parameters`", _TOP, lambda word: "it belongs at the top of the recipe"
    if key == "models":
        return (
            "beside a model",
            PARAMETERS | {_LAYERS},
            lambda word: "whole models are merged, and layers under `slices`" if word == _LAYERS else _UNDER,
        )
    if key in ("", "slices", "sources", "module"):
        where = {"": "at the top of the recipe", "sources": "beside a model"}.get(key, f"in `{key}`")
        return where, PARAMETERS | {_PADDING}, lambda word: "it belongs under `tokenizer`" if word == _PADDING else _UNDER
    return "", frozenset(), str


def with_values(parameters: Any) -> Any:
    """Parameters whose numbers are numbers where they were written in quotes, and whose switches are truth values where they
    were written as 1.0, 0 or "true".
    """
    if not isinstance(parameters, dict):
        return parameters
    return {key: _whole(value) if key in _WHOLE else _value(value, key in _TRUTHS) for key, value in parameters.items()}


def _whole(value: Any) -> Any:
    value = _value(value, False)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _value(value: Any, switch: bool) -> Any:
    if isinstance(value, list):
        return [_value(one, switch) for one in value]
    if isinstance(value, dict) and "value" in value:
        return {**value, "value": _value(value["value"], switch)}
    if isinstance(value, str):
        if switch and value.lower() in _SPELLED:
            return _SPELLED[value.lower()]
        try:
            value = float(value)
        except ValueError:
            return value
    return bool(value) if switch and isinstance(value, (int, float)) and value in (0, 1) else value


def dtype_name(value: Any) -> Any:
    """``torch.bfloat16`` is ``bfloat16``."""
    return value.removeprefix("torch.") if isinstance(value, str) else value
