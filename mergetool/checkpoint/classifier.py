"""Whether a checkpoint is a sequence-classification model, from its headers alone."""

from __future__ import annotations

from mergetool.architecture.reading import reading_of
from mergetool.checkpoint.layout import Layout
from mergetool.errors import CheckpointError


def must_classify(layout: Layout, what: str, hint: str, labels: int | None = None) -> None:
    """Refuses a causal model, which would be given a random head and whose scores would mean nothing.

    Args:
        layout: of the checkpoint.
        what: opens the message: the recipe's key.
        hint: what to give instead.
        labels: the number of scores that each text must get; any if None.

    Raises:
        CheckpointError: the checkpoint has no classification head, or one of another width, or lacks weights.
    """
    config = layout.config
    kind = (config.get("architectures") or ["nothing that its config names"])[0]
    if not kind.endswith("ForSequenceClassification"):
        raise CheckpointError(f"{what}: {layout.name} is {kind}, not a reward model", hint)
    found = len(config.get("id2label") or (0, 1))  # transformers writes the names where there are not two labels
    reading = reading_of(layout)
    if reading is not None and (lost := reading.missing()):
        raise CheckpointError(f"{what}: {layout.name} has no weights for '{lost[0]}', which would be random", hint)
    if labels is not None and found != labels:
        raise CheckpointError(f"{what}: {layout.name} gives {found} scores to a text, not {labels}", hint)
