"""YAML read strictly: every mistake becomes one line that names the file, the place and the next thing to do."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from mergetool import reading
from mergetool.config.yaml_loader import LIMIT, loader
from mergetool.errors import RecipeError, nearest, next_step

if typing.TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    Model = TypeVar("Model", bound=BaseModel)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file whose top level is a mapping.

    Args:
        path: the file.

    Returns:
        Plain dicts, lists, strings and numbers; `1e-6` is a float.

    Raises:
        RecipeError: the file is missing, is no text or no YAML, has a key twice, or is no mapping.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a directory, not a recipe" if path.is_dir() else "no such file"
        raise RecipeError(f"{path}: {what}", "give the path of a YAML recipe; `mergetool recipes ls` lists ready ones")
    return parse_yaml(recipe_text(path), path)


def recipe_text(path: Path) -> str:
    """The text of a recipe's file.

    Raises:
        RecipeError: it is no text, too long, or cannot be read.
    """
    try:
        return reading.text(path, LIMIT)
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file", "a recipe is YAML in UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror or error})", next_step(error)) from None


def parse_yaml(text: str, path: str | Path) -> dict[str, Any]:
    """YAML whose top level is a mapping, as `load_yaml` reads it.

    Args:
        text: the YAML.
        path: what messages call it.

    Raises:
        RecipeError: it is no YAML, has a key twice, or is no mapping.
    """
    import yaml

    if len(text) > LIMIT:
        raise RecipeError(f"{path}: has more than {LIMIT:,} letters", "divide it")
    try:
        loaded = yaml.load(text, Loader=loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise RecipeError(f"{path}: {place}{problem}", "correct the YAML there") from None
    if not isinstance(loaded, dict):
        what = "is empty" if loaded is None else f"holds a {type(loaded).__name__}, not keys and values"
        raise RecipeError(f"{path}: {what}", "`mergetool recipes show NAME` prints a complete one")
    return loaded


def documents(text: str) -> list[str]:
    """The documents of a YAML file, each as a text with the lines where they were; the text alone where it is no YAML."""
    import yaml

    try:
        starts = [event.start_mark for event in yaml.parse(text, loader()) if isinstance(event, yaml.events.DocumentStartEvent)]
        parts = _cut(text, [mark.index for mark in starts])
        return [part for part in parts if getattr(yaml.compose(part, loader()), "value", "")] or [text]
    except yaml.YAMLError:
        return [text]


def _cut(text: str, places: list[int]) -> list[str]:
    ends = [*places, len(text)][1:]
    return ["\n" * text.count("\n", 0, start) + text[start:end] for start, end in zip(places, ends, strict=True)]


def anchored_keys(text: str) -> frozenset[str]:
    """The keys at the top of a YAML mapping whose values other places take over: ``_p: &p {...}`` and later ``*p``."""
    import yaml

    found: dict[str, str] = {}
    used, depth, key = set(), 0, None
    for event in yaml.parse(text, loader()):
        if isinstance(event, yaml.events.AliasEvent):
            used.add(event.anchor)
        if isinstance(event, yaml.events.CollectionEndEvent):
            depth -= 1
            key = None if depth == 1 else key
            continue
        if depth == 1 and isinstance(event, yaml.events.NodeEvent):
            if key is None:
                key = getattr(event, "value", "")
            else:
                if event.anchor is not None and not isinstance(event, yaml.events.AliasEvent):
                    found[key] = event.anchor
                key = key if isinstance(event, yaml.events.CollectionStartEvent) else None
        depth += isinstance(event, yaml.events.CollectionStartEvent)
    return frozenset(key for key, anchor in found.items() if anchor in used)


def validate(model_cls: type[Model], mapping: Any, source: str | Path) -> Model:
    """Makes a pydantic model of what a recipe says.

    Args:
        model_cls: a pydantic model; `extra="forbid"` makes unknown keys errors.
        mapping: what `load_yaml` returned, or a part of it.
        source: the file's name (or the file's name and a place), which opens the message.

    Raises:
        RecipeError: every problem at once, each as `place: problem`; an unknown key names the nearest known one.
    """
    from pydantic import ValidationError

    try:
        return model_cls.model_validate(mapping)
    except ValidationError as error:
        found = _problems(model_cls, error.errors(include_url=False))
    if len(found) == 1:
        place, problem, hint = found[0]
        raise RecipeError(f"{source}: {place}{problem}", hint or "correct it there") from None
    lines = "; ".join(f"{place}{problem}" + (f" ({hint})" if hint else "") for place, problem, hint in found)
    raise RecipeError(f"{source}: {len(found)} problems: {lines}", "correct them there") from None


def _problems(model_cls: type, errors: list[ErrorDetails]) -> list[tuple[str, str, str]]:
    """(place, problem, hint) for every place that is wrong; a union's alternatives count as one place."""
    found: dict[tuple, tuple[str, str, str]] = {}
    for error in errors:
        keys, owners = _walk(model_cls, error["loc"])
        problem, hint = _explain(error, keys, owners)
        place = _dotted(keys)
        found.setdefault(keys, (f"{place}: " if place else "", problem, hint))
    # Where one alternative of a union got further than the others, what it found inside is the better message.
    deepest = [keys for keys in found if not any(other != keys and other[: len(keys)] == keys for other in found)]
    return [found[keys] for keys in deepest]


def _explain(error: ErrorDetails, keys: tuple, owners: list[type]) -> tuple[str, str]:
    """What is wrong at a place, in the words of the one who wrote the recipe; and a hint."""
    kind, given, context = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "extra_forbidden":
        known = {name for owner in owners for name in _field_names(owner)}
        return "unknown key", nearest(str(keys[-1]), known) if known else ""
    if kind == "missing":
        return "required, but missing", f"add `{keys[-1]}:`"
    if kind in ("literal_error", "enum"):
        known = re.findall(r"'([^']*)'", context.get("expected", ""))
        return f"'{given}' is not known", nearest(str(given), known) if known else context.get("expected", "")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        known = re.findall(r"'([^']*)'", context.get("expected_tags", ""))
        tag = context.get("tag", "")
        return f"'{tag}' is not known", nearest(str(tag), known) if known else ""
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"should be a mapping of keys to values, not {_short(given)}", ""
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind in ("value_error", "assertion_error"):
        # A validator of ours writes `problem; next step`, as MergetoolError does.
        problem, _, hint = message.partition("; ")
        return problem, hint
    message = message.removeprefix("Input ")
    return f"{message[0].lower()}{message[1:].split(',')[0]}, not {_short(given)}", ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _dotted(keys: tuple) -> str:
    """('models', 0, 'weight') -> models[0].weight"""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def _walk(model_cls: type, loc: tuple) -> tuple[tuple, list[type]]:
    """The keys of a pydantic location without the names of union alternatives, and the models at its last key.

    pydantic puts the alternative that it tried ('float', 'list[float]', 'Merging') into the location.
    """
    here: list[Any] = [model_cls]
    owners: list[type] = [model_cls]
    keys: list[Any] = []
    for index, part in enumerate(loc):
        models = [kind for kind in here if _field_names(kind)]
        named = [kind for kind in here if getattr(kind, "__name__", None) == part]
        fields = [_annotation(kind, part) for kind in models if part in _field_names(kind)]
        if fields:
            owners, here = models, [kind for field in fields for kind in _alternatives(field)]
        elif isinstance(part, int):
            here = [kind for option in here for arg in typing.get_args(option) for kind in _alternatives(arg)]
        elif named:
            here = named
            owners = named
            continue
        elif models and index == len(loc) - 1:
            owners, here = models, []
        elif any(typing.get_origin(kind) is dict for kind in here) and not _names_a_type(part):
            values = [typing.get_args(kind)[1] for kind in here if typing.get_origin(kind) is dict]
            here = [kind for value in values for kind in _alternatives(value)]
        elif index > 0:
            continue
        keys.append(part)
    return tuple(keys), owners


def _names_a_type(part: Any) -> bool:
    return bool(
        re.fullmatch(r"(constrained-)?(str|int|float|bool|none|dict|list|tuple|literal|function|lax|model)\b.*", str(part))
    )


def _alternatives(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [kind for option in typing.get_args(annotation) for kind in _alternatives(option)]
    return [annotation]


def _field_names(kind: Any) -> dict[str, str]:
    """Names as the recipe writes them -> names of the attributes."""
    fields = getattr(kind, "model_fields", None) or {}
    return {str(field.alias or name): name for name, field in fields.items()}


def _annotation(kind: Any, key: str) -> Any:
    return kind.model_fields[_field_names(kind)[key]].annotation
