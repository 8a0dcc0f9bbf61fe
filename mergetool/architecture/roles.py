"""What a tensor outside of the layers is: embeddings, final norm, or head, as the class of the model has it."""

from __future__ import annotations

from mergetool.architecture.layers import Stacks
from mergetool.architecture.reading import Checkpoint, Reading, reading_of
from mergetool.errors import CheckpointError

ROLES = ("embeddings", "final_norm", "lm_head")
"""What lies outside of the layers."""


def depth_of(checkpoint: Checkpoint) -> Stacks:
    """The stacks of a checkpoint, as deep as its class makes them.

    What the configuration says in its plain words is believed without asking transformers for the class.
    """
    stacks = Stacks(checkpoint.tensors)
    if list(stacks.depth.values()) == [checkpoint.config.get("num_hidden_layers")]:
        return stacks
    reading = reading_of(checkpoint)
    if reading is None:
        return stacks
    return Stacks(checkpoint.tensors, [name for name in checkpoint.tensors if name not in reading.unneeded])


def roles_of(checkpoint: Checkpoint) -> dict[str, str]:
    """Each tensor outside of the layers -> its role.

    Embeddings are the modules that look words or positions up, and what lies with them in one module. The head is the
    module that gives the logits, and all that lies outside of the base model. The rest are final norms.

    Raises:
        CheckpointError: transformers does not know the architecture.
    """
    stacks = Stacks(checkpoint.tensors)
    outside = [name for name in checkpoint.tensors if stacks.place(name) is None]
    reading = reading_of(checkpoint)
    if reading is None:
        kind = checkpoint.config.get("model_type")
        raise CheckpointError(
            f"{checkpoint.name}: which tensor is an embedding or a head is not known: "
            f"transformers cannot make a model of model_type {kind!r}",
            "say the tensors by name in a merge recipe (filter)",
        )
    words = _embeddings(reading)
    heads = _heads(reading)
    return {name: _role(reading.weight(name), words, heads) for name in outside}


def _role(weight: str, embeddings: list[str], heads: list[str]) -> str:
    if any(weight.startswith(head) for head in heads):
        return "lm_head"
    # BLOOM's word_embeddings_layernorm is named after the embeddings that it belongs to
    return "embeddings" if any(weight.startswith(word) for word in embeddings) else "final_norm"


def _embeddings(reading: Reading) -> list[str]:
    """The modules that are embeddings or hold them, as prefixes of weights."""
    import torch

    model, found = reading.skeleton.model, []
    modules = dict(model.named_modules())
    stacks = Stacks(reading.skeleton.shapes)
    for name, module in modules.items():
        if not isinstance(module, torch.nn.Embedding) or stacks.place(f"{name}.weight") is not None:
            continue
        found.append(name)
        around = name.rpartition(".")[0]
        holds_layers = any(stack.startswith(around) for stack in stacks.depth)
        if around and not holds_layers and modules[around] is not model.base_model:
            found.append(f"{around}.")
    return found


def _heads(reading: Reading) -> list[str]:
    """The modules that make the output, as prefixes of weights."""
    model, found = reading.skeleton.model, []
    try:
        output = model.get_output_embeddings()
    except (NotImplementedError, AttributeError):
        output = None
    found += [f"{name}." for name, module in model.named_modules() if output is not None and module is output]
    if model.base_model is not model:
        inside = f"{model.base_model_prefix}."
        found += [f"{name}." for name, _ in model.named_children() if f"{name}." != inside]
        found += [name for name, _ in model.named_parameters(recurse=False)]
    return found
