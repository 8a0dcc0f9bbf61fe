"""The page of every key that a recipe may have, from the models that read recipes.

python -m tools.recipe_reference > docs/recipe-reference.md       # part of `make docs`
"""

from __future__ import annotations

import json
import sys
from typing import Any

from mergetool.config.packaged import KINDS
from mergetool.recipe_kinds import schema

OPENING = """# Recipe reference

Every key of the four kinds of recipe, generated from the models that read them. What depends on several keys, on a method or
on files is in [merge](merge.md), [align](align.md), [AMA](ama.md) and [compare](compare.md), and `mergetool check RECIPE`
says what is wrong. `mergetool schema KIND` prints the same as a JSON Schema, which editors with yaml-language-server read.
"""


def page() -> str:
    """The whole page, as Markdown."""
    parts = [OPENING]
    for kind in KINDS:
        made = schema(kind)
        parts.append(f"\n## {kind.capitalize() if kind != 'ama' else 'AMA'} recipes\n")
        parts.append(_table(made, made))
        for name, part in made.get("$defs", {}).items():
            inner = next((one for one in part.get("anyOf", []) if "properties" in one), part)
            if inner.get("properties"):
                parts.append(f"\n### {name} of {_article(kind)} {kind} recipe\n")
                parts.append(f"{part.get('description', '')}\n" if part.get("description") else "")
                parts.append(_table(inner, made))
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _table(part: dict[str, Any], whole: dict[str, Any]) -> str:
    rows = ["| key | type | default | what it is |", "|---|---|---|---|"]
    needed = part.get("required", [])
    for key, value in part["properties"].items():
        default = "required" if key in needed else _default(value)
        rows.append(f"| `{key}` | {_type(value, whole)} | {default} | {value.get('description', '')} |".replace("  |", " |"))
    return "\n".join(rows) + "\n"


def _default(value: dict[str, Any]) -> str:
    given = value.get("default")
    return "" if given is None or isinstance(given, (list, dict)) else f"`{json.dumps(given, ensure_ascii=False)}`"


def _type(value: dict[str, Any], whole: dict[str, Any]) -> str:
    """A type in words: `number from 0 to 1`, `list of text`."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return name if whole["$defs"][name].get("properties") or "anyOf" in whole["$defs"][name] else "mapping"
    if "enum" in value:
        return " or ".join(f"`{one}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "type" not in value:
        some = value.get("anyOf") or value.get("oneOf") or []
        found = [_type(one, whole) for one in some if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(found)) or "anything"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}
    word = words.get(value["type"]) or str(value["type"])
    if word == "array":
        return f"list of {_type(value.get('items', {}), whole)}"
    low, above = value.get("minimum"), value.get("exclusiveMinimum")
    high, below = value.get("maximum"), value.get("exclusiveMaximum")
    bounds = [
        f"above {above}" if above is not None else f"at least {low}" if low is not None else "",
        f"below {below}" if below is not None else f"at most {high}" if high is not None else "",
    ]
    return " ".join([word, ", ".join(bound for bound in bounds if bound)]).strip()


if __name__ == "__main__":
    sys.stdout.write(page())
