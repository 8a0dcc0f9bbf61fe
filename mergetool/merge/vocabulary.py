"""Words before rows: which row of which model each word of the result takes, where the models' vocabularies differ.

`tokenizer_source` and `tokenizer` mean what they mean in mergekit 0.1.5 (tokenizer/build.py, embed.py): a model's own
row for a word that it has; for a word that it lacks the base's, else that of the only model that has it, else the mean of
those that have it, else zero. Each model is then read as if it had the result's vocabulary (`checkpoint.rows`), so that
methods know nothing of words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mergetool import reading
from mergetool.architecture.vocabulary import WordTensors, vocabulary_holder
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.model_files import TOKENIZER_FILES
from mergetool.checkpoint.place import Place
from mergetool.checkpoint.reader import Reader
from mergetool.checkpoint.rows import ZERO, Loan, Rows, RowsReader, as_shown, row_count
from mergetool.checkpoint.words import WORDS, same_words, words_of
from mergetool.errors import CheckpointError, RecipeError, nearest
from mergetool.hub.references import open_place
from mergetool.merge.recipe import MergeRecipe, reference_of
from mergetool.merge.union import added_words, with_words

_KEPT = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json")
_SPECIAL = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
)


@dataclass(frozen=True)
class Wanted:
    """What a recipe says of the result's vocabulary.

    Attributes:
        source: ``base``, ``union``, a model; None where the recipe says nothing.
        tokens: word -> where its row comes from.
        multiple: pad the rows to a multiple of this.
    """

    source: str | None
    tokens: Mapping[str, Any] = field(default_factory=dict)
    multiple: int | None = None

    @classmethod
    def of(cls, recipe: MergeRecipe) -> Wanted:
        """Read `tokenizer_source` or `tokenizer`.

        Raises:
            RecipeError: both are given, or a key in `tokenizer` is not known.
        """
        if recipe.tokenizer is None:
            source = recipe.tokenizer_source
            return cls(None if source is None else str(reference_of(source)))
        if recipe.tokenizer_source is not None:
            raise RecipeError("tokenizer and tokenizer_source say the same thing", "give one of them")
        known = ("source", "tokens", "pad_to_multiple_of")
        for key in recipe.tokenizer:
            if key not in known:
                raise RecipeError(f"tokenizer.{key}: unknown key", nearest(str(key), known))
        multiple, tokens = recipe.tokenizer.get("pad_to_multiple_of"), recipe.tokenizer.get("tokens") or {}
        if multiple is not None and (not isinstance(multiple, int) or isinstance(multiple, bool) or multiple < 1):
            raise RecipeError(f"tokenizer.pad_to_multiple_of is {multiple!r}", "give a whole number above 0, or leave it out")
        if not isinstance(tokens, dict):
            raise RecipeError("tokenizer.tokens is not a mapping of words", "write `tokens: {WORD: {source: MODEL}}`")
        return cls(str(reference_of(recipe.tokenizer.get("source", "union"))), tokens, multiple)


@dataclass(frozen=True)
class Vocabulary:
    """The result's vocabulary.

    Attributes:
        place: whose tokenizer files the result gets.
        tokenizer: tokenizer.json with words added; None where the file is the place's own.
        size: rows of an embedding of the result.
        rows: for each source, tensor -> the rows that it is shown with.
        moved: rows of the base's special words -> their rows in the result.
        digest: changes with any of these.
    """

    place: Place
    tokenizer: str | None
    size: int
    rows: tuple[Mapping[str, Rows], ...] = field(repr=False)
    moved: Mapping[int, int]
    digest: str

    def readers(self, readers: Sequence[Reader], layouts: Sequence[Layout]) -> list[Reader]:
        """The sources' readers, each showing its model with the result's vocabulary."""
        return [
            RowsReader(layout, rows, reader, readers.__getitem__) if rows else reader
            for layout, rows, reader in zip(layouts, self.rows, readers, strict=True)
        ]

    @property
    def names(self) -> set[str]:
        """The tensors whose rows are rearranged."""
        return {name for rows in self.rows for name in rows}


def plan_vocabulary(
    recipe: MergeRecipe, names: Sequence[str], layouts: Sequence[Layout], base: int
) -> tuple[Place, Vocabulary | None, list[Layout]]:
    """Work out the result's vocabulary.

    Args:
        recipe: its `tokenizer_source` or `tokenizer`.
        names: of the inputs, as the recipe has them.
        layouts: their headers.
        base: the place of the base among them.

    Returns:
        Whose tokenizer files the result gets; the vocabulary where rows have to be rearranged, else None; and the layouts
        as they are then shown.

    Raises:
        CheckpointError: the vocabularies differ and the recipe does not say what to do.
        RecipeError: `tokenizer` cannot be carried out.
    """
    wanted = Wanted.of(recipe)
    places = [_place(layout) for layout in layouts]
    index = {name: i for i, name in enumerate(names)}
    own = base if wanted.source in (None, "base", "union") else index.get(str(wanted.source))
    target = places[own] if own is not None else open_place(str(wanted.source))
    alike = [same_words(target, place) for place in places]
    if wanted.source is None and not all(alike):
        raise CheckpointError(
            f"{layouts[alike.index(False)].name}: its tokenizer's vocabulary differs from that of {layouts[base].name}",
            "say which words the result has: `tokenizer_source: base`, `union`, or a model's path",
        )
    if all(alike) and not wanted.tokens and wanted.multiple is None and not _rows_differ(layouts, base):
        return target, None, list(layouts)
    words = [words_of(place) for place in places]
    if wanted.source is None and any(one is None for one in words):
        return target, None, list(layouts)  # nothing is known of the words: the check of the shapes speaks
    vocabulary = _Builder(wanted, names, layouts, words, base, own, target, recipe.base_model is not None).build()
    shown = [as_shown(layout, rows) for layout, rows in zip(layouts, vocabulary.rows, strict=True)]
    return target, vocabulary, shown


def _place(layout: Layout) -> Place:
    assert layout.place is not None  # layouts of a plan are read from somewhere
    return layout.place


def _rows_differ(layouts: Sequence[Layout], base: int) -> bool:
    """True where some tensor has as many columns as the base's but more or fewer rows."""
    ours = layouts[base].tensors
    return any(
        name in ours and ours[name].shape[1:] == info.shape[1:] and ours[name].shape != info.shape
        for layout in layouts
        for name, info in layout.tensors.items()
    )


class _Builder:
    """Puts a `Vocabulary` together. `own` is the source whose tokenizer the result gets, None where it is no source."""

    def __init__(
        self, wanted: Wanted, names: Sequence[str], layouts: Sequence[Layout], words: Sequence[dict[str, int] | None],
        base: int, own: int | None, target: Place, stands_in: bool,
    ) -> None:  # fmt: skip
        self.stands_in = stands_in  # whether a word that a source lacks has the base's row where the base has one
        self.wanted, self.names, self.layouts, self.base, self.own, self.target = wanted, names, layouts, base, own, target
        found = words[base] if words[base] is not None else next((w for w in words if w is not None), None)
        target_words = words_of(target)
        if found is None or target_words is None:
            raise CheckpointError(f"{target.name}: has no tokenizer, and rows go by words", "leave tokenizer_source out")
        self.words = [found if one is None else one for one in words]  # a model without a tokenizer has the base's words
        self.out, self.tokenizer = target_words, None
        self.tensors = [WordTensors(layout) for layout in layouts]
        self.counts = [self._count(layout, one) for layout, one in zip(layouts, self.tensors, strict=True)]

    def build(self) -> Vocabulary:
        """The whole of it."""
        wanted, added = self.wanted, [(word, {}) for word in self.wanted.tokens]
        if wanted.source == "union":
            places = [_place(layout) for layout in self.layouts]
            added = added_words(places, self.words, self.counts, self.base) + added
        if any(word not in self.out for word, _ in added):
            self.tokenizer, self.out = with_words(self.target, added)
        words = max(self.out.values(), default=-1) + 1
        kept = self.counts[self.own] if self.own is not None else 0
        size, mean = max(words if self.tokenizer or self.own is None else 0, kept), 0
        if wanted.multiple is not None:
            size = -(-words // wanted.multiple) * wanted.multiple
            mean = size - words
        defaults = self._defaults()
        rows = tuple(self._rows(i, size - mean, mean, defaults) for i in range(len(self.layouts)))
        moved = {}
        for word, row in self.words[self.base].items():
            if self.out.get(word, row) != row:
                moved[row] = self.out[word]
        text = [
            self.tokenizer,
            size,
            sorted(self.out.items()),
            [[one[n].taken.tobytes().hex() for n in sorted(one)] for one in rows],
        ]
        return Vocabulary(self.target, self.tokenizer, size, rows, moved, sha256(json.dumps(text).encode()).hexdigest())

    def _count(self, layout: Layout, tensors: WordTensors) -> int:
        """The rows of a model's embedding, the most that any of its tensors of words has."""
        counts = [row_count(layout.tensors[name].shape) for name in tensors.weight]
        if not counts:
            raise CheckpointError(f"{layout.name}: has no tensor with a row for each word", "leave tokenizer_source out")
        return max(counts)

    def _row(self, i: int, word: str) -> int | None:
        """A word's row in a source; None where it has none."""
        row = self.words[i].get(word)
        return row if row is not None and row < self.counts[i] else None

    def _defaults(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """Word -> (source, row) of those whose mean stands in where a source lacks it; () is zero."""
        found: dict[str, tuple[tuple[int, int], ...]] = {}
        everyone = range(len(self.layouts))
        for word in self.out:
            setting = self.wanted.tokens.get(word)
            chosen = self._chosen(word, setting) if setting is not None else None
            if chosen is not None:
                found[word] = chosen
                continue
            having = [(i, row) for i in everyone if (row := self._row(i, word)) is not None]
            if len(having) == len(everyone):
                continue
            bases = [one for one in having if one[0] == self.base and self.stands_in]
            found[word] = tuple(bases) if bases else tuple(having)
        return found

    def _chosen(self, word: str, setting: Any) -> tuple[tuple[int, int], ...] | None:
        """What the recipe says of a word's row; None where it says nothing of its source."""
        at = f"tokenizer.tokens[{word!r}]"
        if not isinstance(setting, dict) or set(setting) - {"source", "force"}:
            raise RecipeError(
                f"{at} is {setting!r}", "write {source: MODEL}, and force: true where models' own rows are not meant"
            )
        source = setting.get("source")
        if source is None:
            return None
        if isinstance(source, dict) and source.get("kind") == "zero":
            return ()
        kind = isinstance(source, dict) and source.get("kind") == "model_token"
        name = str(reference_of(source["model"] if kind else source))
        if name not in self.names:
            raise RecipeError(f"{at}.source: {name} is not among the models", nearest(name, self.names))
        i = self.names.index(name)
        if kind and isinstance(source.get("token_id"), int):
            row = source["token_id"] if 0 <= source["token_id"] < self.counts[i] else None
        else:
            row = self._row(i, str(source["token"]) if kind and "token" in source else word)
        if row is None:
            raise RecipeError(f"{at}.source: {name} has no such word", "name a model and a word that it has")
        return ((i, row),)

    def _rows(self, i: int, size: int, mean: int, defaults: Mapping[str, tuple[tuple[int, int], ...]]) -> dict[str, Rows]:
        layout, found = self.layouts[i], {}
        for name, weight in self.tensors[i].weight.items():
            info, loans = layout.tensors[name], []

            def borrow(rows: Sequence[tuple[int, int]], weight: str = weight, loans: list[Loan] = loans) -> int:
                named = [(j, self.tensors[j].holding(weight), row) for j, row in rows]
                loans.append(Loan(tuple((j, one, row) for j, one, row in named if one is not None)))
                return -1 - len(loans) if loans[-1].rows else ZERO

            taken = np.full(size, ZERO, dtype=np.int64)
            count = row_count(info.shape)
            spare = min(size, count)
            taken[:spare] = np.arange(spare)  # rows without a word, and then the words over them
            if self.own is not None and self.own != i:
                for row in range(spare, min(size, self.counts[self.own])):
                    taken[row] = borrow([(self.own, row)])
            for word, row in self.out.items():
                if row >= size:
                    continue
                force = bool((self.wanted.tokens.get(word) or {}).get("force"))
                mine = None if force and word in defaults else self._row(i, word)
                if mine is not None and mine < count:
                    taken[row] = mine
                else:
                    taken[row] = borrow(defaults[word]) if defaults.get(word) else ZERO
            found[name] = Rows(taken, tuple(loans), mean, info)
        return found


def write_vocabulary(vocabulary: Vocabulary, directory: Path) -> None:
    """Make the configuration and the tokenizer of a finished directory say what the rows are.

    Args:
        vocabulary: of the plan.
        directory: holds config.json and the tokenizer files of `vocabulary.place`.
    """
    for file in ("config.json", "generation_config.json"):
        path = directory / file
        if not path.exists():
            continue
        content = reading.parsed_file(path)
        if file == "config.json":
            holder = vocabulary_holder(content)
            assert isinstance(holder, dict)
            holder["vocab_size"] = vocabulary.size
        for part in (content, content.get("text_config")):
            if isinstance(part, dict):
                part.update({key: _moved(part[key], vocabulary.moved) for key in _SPECIAL if key in part})
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if vocabulary.tokenizer is not None:
        for name in TOKENIZER_FILES:
            if name not in _KEPT:  # tables without the words that were added
                (directory / name).unlink(missing_ok=True)
        (directory / WORDS).write_text(vocabulary.tokenizer, encoding="utf-8")


def _moved(value: Any, moved: Mapping[int, int]) -> Any:
    if isinstance(value, list):
        return [_moved(one, moved) for one in value]
    return moved.get(value, value) if isinstance(value, int) and not isinstance(value, bool) else value
