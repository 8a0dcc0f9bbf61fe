"""Every part that the table uses names a file, and no two online methods share a word."""

from __future__ import annotations

from mergetool.methods import METHODS, ConsensusRow, Online, SparsifierRow, parts
from mergetool.ops.consensus import consensus
from mergetool.ops.sparsifiers import sparsifier


def test_every_part_is_used_by_some_row_and_leads_to_its_file() -> None:
    held = [value for name, value in vars(parts).items() if name.isupper()]
    used = [*(m.sparsifier for m in METHODS.values()), *(m.consensus for m in METHODS.values())]
    for part in held:
        if isinstance(part, SparsifierRow):
            assert part in used
            assert sparsifier(part.name)
        if isinstance(part, ConsensusRow):
            assert part in used
            assert consensus(part.name)


def test_online_methods_have_words_and_classes_of_their_own() -> None:
    online = [value for value in vars(parts).values() if isinstance(value, Online)]
    assert len({one.word for one in online}) == len({one.optimizer for one in online}) == len(online) == 4
