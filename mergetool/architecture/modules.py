"""The parts of a model that a recipe's `modules` name: paths in it, and mergekit's words for what a class has several of.

mergekit 0.1.5 calls the parts of a vision-language model text_decoder, vision_tower (or vision_model) and
multi_modal_projector, those of an encoder-decoder encoder, decoder and shared, and those of a class that it does not know by
the paths of its stacks of layers; the rest, and a model of one part, is default.
"""

from __future__ import annotations

from collections.abc import Iterable

from mergetool.architecture.layers import Stacks
from mergetool.architecture.reading import Checkpoint, Reading, reading_of
from mergetool.architecture.roles import roles_of
from mergetool.errors import RecipeError, nearest

TEXT, VISION, PROJECTOR, REST = "text_decoder", "vision_tower", "multi_modal_projector", "default"
_ALSO = {"vision_model": VISION}  # of Llama 4
_HEADS = (TEXT, "shared", "decoder")  # what a head that lies in no part itself belongs to, the first that is named


def parts_of(checkpoint: Checkpoint, words: Iterable[str]) -> dict[str, str]:
    """Which of some parts each tensor of a checkpoint belongs to.

    Args:
        checkpoint: its configuration and headers.
        words: the parts, in mergekit's words or as paths (``model.vision_tower``, ``encoder``).

    Returns:
        Tensor -> word, of all tensors.

    Raises:
        RecipeError: a word names no part of this model, or a tensor is in none of the parts.
    """
    words = list(words)
    reading = reading_of(checkpoint)
    kinds = {} if reading is None else _kinds(reading, checkpoint.tensors)
    heads = [] if reading is None else [name for name, role in roles_of(checkpoint).items() if role == "lm_head"]
    found: dict[str, str | None] = {}
    for name in checkpoint.tensors:
        live = name if reading is None else reading.weight(name)
        inside = [(place, word) for word in words if (place := _within(word, name, live)) is not None]
        kind = next((word for word in words if _ALSO.get(word, word) == kinds.get(name)), None)
        # the projector of some classes lies within what another word names by its path
        found[name] = kind if kind == PROJECTOR or not inside else min(inside)[1]
        if found[name] is None:
            found[name] = next((w for w in _HEADS if w in words), None) if name in heads else kind
        found[name] = found[name] or (REST if REST in words else None)
    if lost := next((word for word in words if word not in found.values()), None):
        known = sorted({path for name in checkpoint.tensors for path in _paths(name)} | set(kinds.values()))
        raise RecipeError(f"modules.{lost}: {checkpoint.name} has no part of this name", nearest(lost, known))
    if missing := [name for name, word in found.items() if word is None]:
        raise RecipeError(
            f"modules: '{missing[0]}' ({len(missing)} tensors in all) is in none of {', '.join(words)}",
            f"add the part that it is in, or `{REST}:` for all that is left",
        )
    return {name: word for name, word in found.items() if word is not None}


def _within(word: str, name: str, live: str) -> int | None:
    """How deep in a tensor's name, on disk or in memory, the path `word` begins; None where it is not on it."""
    places = [at for path in (name, live) if (at := f".{path}.".find(f".{word}.")) >= 0]
    return min(places, default=None)


def _paths(name: str) -> list[str]:
    """The modules that a tensor lies in, by the first of their names."""
    stack = next(iter(Stacks([name]).depth), name.rpartition(".")[0])
    return [part for part in stack.split(".") if part and not part.isdecimal()][:2]


def _kinds(reading: Reading, names: Iterable[str]) -> dict[str, str]:
    """Tensor -> text, vision or projector, as the class of a vision-language model has them; empty of any other model."""
    model = reading.skeleton.model
    vision, text = model.get_encoder(modality="image"), model.get_decoder()
    if vision in (model, model.base_model) or text in (model, model.base_model):
        return {}
    paths = {module: path for path, module in model.named_modules()}
    towers = {TEXT: f"{paths[text]}.", VISION: f"{paths[vision]}."}
    weights = {name: reading.weight(name) for name in names}
    output = model.get_output_embeddings()
    if output is not None:
        weights = {name: towers[TEXT] if weight.startswith(f"{paths[output]}.") else weight for name, weight in weights.items()}
    found = {
        name: next((kind for kind, tower in towers.items() if weight.startswith(tower)), PROJECTOR)
        for name, weight in weights.items()
    }
    if PROJECTOR not in found.values():  # then it is what lies behind the layers of the vision tower
        behind = _behind_its_layers(vision)
        for name, weight in weights.items():
            if found[name] == VISION and weight.removeprefix(towers[VISION]).partition(".")[0] in behind:
                found[name] = PROJECTOR
    return found


def _behind_its_layers(module: object) -> list[str]:
    """The members of a module behind its first list of layers."""
    import torch

    assert isinstance(module, torch.nn.Module)
    members = list(module.named_children())
    first = next((i for i, (_, member) in enumerate(members) if isinstance(member, torch.nn.ModuleList)), len(members))
    return [name for name, _ in members[first + 1 :]]
