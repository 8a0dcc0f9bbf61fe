"""A plan: what a merge will read, compute and write, for every tensor. `planner` makes it, the engine carries it out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from mergetool import __version__
from mergetool.checkpoint.header import DTYPES
from mergetool.checkpoint.layout import Layout
from mergetool.merge.recipe import MergeRecipe
from mergetool.methods import Method

EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Source:
    """One distinct input model: its name in the recipe and its headers."""

    name: str
    layout: Layout

    def stored_name(self, name: str) -> str:
        """The tensor that holds `name`: itself, or the input embedding where a tied head has no tensor of its own."""
        if name in self.layout.tensors or not name.endswith(HEAD) or not self.layout.tied:
            return name
        return next((n for n in self.layout.tensors if n.endswith(EMBEDDING)), name)


@dataclass(frozen=True, slots=True)
class Term:
    """One model's part in one tensor.

    `source` and `origin` index the plan's sources; `role` keys its randomness; `options` are the method's that each model has
    for itself.
    """

    source: int
    origin: int | None
    weight: float
    role: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """How one output tensor is made; `options` are the method's that all models share."""

    name: str
    shape: tuple[int, ...]
    numel: int
    dtype_name: str
    floating: bool
    base: int
    terms: tuple[Term, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sources(self) -> list[int]:
        """The sources that are read, each once."""
        used = [self.base] if not self.terms or any(t.origin is not None for t in self.terms) else []
        for term in self.terms:
            used += [term.source] if term.origin is None else [term.source, term.origin]
        return list(dict.fromkeys(used))


@dataclass(frozen=True)
class Plan:
    """A merge ready to be carried out.

    `engine` is "native" or "mergekit"; `reason` says why it is not ours. `tensors` are in output order.
    """

    recipe: MergeRecipe
    engine: str
    reason: str
    method: Method | None
    sources: tuple[Source, ...]
    sidecar: int
    tokenizer: int
    tensors: tuple[TensorPlan, ...] = field(default=(), repr=False)

    @property
    def bytes_read(self) -> int:
        """Bytes of weights that the merge reads (once; sparsifiers that need a statistic read them again)."""
        layouts = [s.layout for s in self.sources]
        return sum(layouts[s].tensors[self.sources[s].stored_name(t.name)].nbytes for t in self.tensors for s in t.sources)

    @property
    def bytes_written(self) -> int:
        """Bytes of weights in the output."""
        return sum(t.numel * DTYPES[t.dtype_name][1] for t in self.tensors)

    @property
    def fingerprint(self) -> str:
        """Identifies recipe, inputs (headers, sizes, commits or times of change) and program; equal ones, equal bytes."""
        inputs = [part for s in self.sources for part in s.layout.identity]
        text = json.dumps([__version__, self.recipe.to_dict(), inputs], sort_keys=True)
        return sha256(text.encode()).hexdigest()
