"""The chat template that a recipe asks for: Jinja text, the name of one, or the one that most of the models have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from mergetool import reading
from mergetool.checkpoint.place import Place
from mergetool.errors import RecipeError, nearest

_JINJA, _CONFIG = "chat_template.jinja", "tokenizer_config.json"


def chat_template(wanted: str | None, places: Iterable[Place]) -> str | None:
    """The text of the template; None where each tokenizer keeps its own.

    Args:
        wanted: `chat_template` of the recipe: text with a brace, a name of mergekit's (chatml, llama3, ...), or ``auto``.
        places: the models, in the order in which ``auto`` prefers them where as many have one template as another.

    Raises:
        RecipeError: there is no template of that name.
    """
    if not wanted or "{" in wanted:
        return wanted or None
    if wanted == "auto":
        found = [text for text in map(own_template, places) if text]
        return Counter(found).most_common(1)[0][0] if found else None
    named = _named()
    if wanted not in named:
        raise RecipeError(f"chat_template: there is no template '{wanted}'", nearest(wanted, [*named, "auto"]))
    return named[wanted].read_text(encoding="utf-8")


def own_template(place: Place) -> str | None:
    """A model's own template, the default one where it has several."""
    files = place.files()
    if _JINJA in files:
        return reading.text(place.path(_JINJA)).strip() or None
    if _CONFIG not in files:
        return None
    found = reading.parsed_file(place.path(_CONFIG)).get("chat_template")
    if isinstance(found, list):
        found = next((one.get("template") for one in found if one.get("name") == "default"), None)
    return found.strip() or None if isinstance(found, str) else None


def _named() -> dict[str, Path]:
    """The templates that mergekit ships; it is not imported for them."""
    spec = find_spec("mergekit")
    places = (spec.submodule_search_locations or []) if spec else []
    return {file.stem: file for at in places for file in sorted(Path(at, "_data", "chat_templates").glob("*.jinja"))}
