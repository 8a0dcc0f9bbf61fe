"""Heads that only look like heads of their own: a trainer has written the tied embedding once more."""

from __future__ import annotations

from dataclasses import replace

from mergetool.checkpoint.open import open_reader
from mergetool.checkpoint.reader import equal
from mergetool.merge.plan import Plan


def without_copies(plan: Plan) -> Plan:
    """The plan without those tensors beside the base's that are copies of what stands for them wherever they are stored.

    Args:
        plan: native; the weights of its inputs are on this disk.
    """
    copied = {name for name in plan.added if _copied(plan, name)}
    if not copied:
        return plan
    kept = tuple(tensor for tensor in plan.tensors if tensor.name not in copied)
    return replace(plan, tensors=kept, added=tuple(name for name in plan.added if name not in copied))


def _copied(plan: Plan, name: str) -> bool:
    first = plan.sources[plan.sidecar].stored_name(name)
    for i, source in enumerate(plan.sources):
        if name in source.layout.tensors:
            with open_reader(plan.stored_layout(i)) as reader:
                if not equal(reader, name, reader, source.stored_name(first)):
                    return False
    return True
