"""A plan: what a merge will read, compute and write, for every tensor. `planner` makes it, the engine carries it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergetool.checkpoint.header import DTYPES
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.place import Place
from mergetool.checkpoint.rows import as_stored
from mergetool.merge.recipe import MergeRecipe
from mergetool.merge.vocabulary import Vocabulary
from mergetool.methods import Method


@dataclass(frozen=True, slots=True)
class Source:
    """One distinct input model: its name in the recipe, its headers, and which of its tensors stand for others."""

    name: str
    layout: Layout
    stands_for: Mapping[str, str] = field(default_factory=dict)

    def stored_name(self, name: str) -> str:
        """The tensor that holds `name`: itself, or the one that is tied to it or has another name in this file."""
        return self.stands_for.get(name, name)


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

    `engine` is "native" or "mergekit"; `reason` says why it is not ours. `tensors` are in output order. `added` are those
    that the base does not hold under their own name, and `notes` say what was carried over or left out. `tokenizer` is
    where the result's tokenizer files lie; `vocabulary` is set where the sources are shown with other rows than they have,
    `config` where the result's configuration is not the base's, `chat_template` where its template is not the tokenizer's.
    """

    recipe: MergeRecipe
    engine: str
    reason: str
    method: Method | None
    sources: tuple[Source, ...]
    sidecar: int
    tokenizer: Place | None
    tensors: tuple[TensorPlan, ...] = field(default=(), repr=False)
    added: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = field(default=None, repr=False)
    config: Mapping[str, Any] | None = field(default=None, repr=False)
    chat_template: str | None = field(default=None, repr=False)

    def entry(self, role: str) -> str:
        """Where in the recipe a term's model stands, and the model: ``models[1] org/name``."""
        part, _, one = role.rpartition(".")
        place = f"slices[{part}].sources[{one}]" if part.isdecimal() else f"{part}{'.' if part else ''}models[{one}]"
        return f"{place} {dict(self.recipe.entries())[place].model}"

    def stored_layout(self, source: int) -> Layout:
        """A source as it is on disk, where it is shown with other rows."""
        layout = self.sources[source].layout
        return layout if self.vocabulary is None else as_stored(layout, self.vocabulary.rows[source])

    def files_of(self, name: str, sources: Iterable[int]) -> list[Path]:
        """The weight files that a tensor is read from; a row of a word that a source lacks comes from another one."""
        if self.vocabulary is not None and name in self.vocabulary.names:
            sources = range(len(self.sources))
        read = [(self.sources[i].layout, self.sources[i].stored_name(name)) for i in sources]
        return [file for layout, stored in read if stored in layout.tensors for file in layout.files_of(stored)]

    @property
    def bytes_read(self) -> int:
        """Bytes of weights that the merge reads (once; sparsifiers that need a statistic read them again)."""
        layouts = [s.layout for s in self.sources]
        return sum(layouts[s].tensors[self.sources[s].stored_name(t.name)].nbytes for t in self.tensors for s in t.sources)

    @property
    def bytes_written(self) -> int:
        """Bytes of weights in the output."""
        return sum(t.numel * DTYPES[t.dtype_name][1] for t in self.tensors)
