"""Rows are merged by the words that they stand for; the result loads, and its tokenizer says what its rows are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mergetool.errors import CheckpointError, RecipeError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from tests.words import PLAIN, SPECIAL, config_of, words_in, write_words

E, H = "model.embed_tokens.weight", "lm_head.weight"
WORDS = [*SPECIAL, *PLAIN]


def merged(tmp_path: Path, *models: Path, out: str = "out", threads: int | None = None, **also: Any) -> dict[str, torch.Tensor]:
    entries = [{"model": str(m), "parameters": {"weight": 1.0}} for m in models]
    recipe = {"merge_method": "linear", "base_model": str(models[0]), "models": entries, "dtype": "float32", **also}
    recipe.pop("base_model") if also.get("base_model") == "" else None
    merge_to_directory(plan_merge(MergeRecipe.model_validate(recipe)), tmp_path / out, threads=threads)
    return load_file(tmp_path / out / "model.safetensors")


@pytest.mark.parametrize("tied", [True, False])
def test_words_at_other_rows_are_merged_with_themselves(tmp_path: Path, tied: bool) -> None:
    a, b, moved = tmp_path / "a", tmp_path / "b", [*PLAIN, *SPECIAL[::-1]]
    first, second = write_words(a, 1, WORDS, tied=tied), write_words(b, 2, moved, tied=tied)
    found = merged(tmp_path, a, b, tokenizer_source="base")
    order = [moved.index(word) for word in WORDS]
    for name in (E,) if tied else (E, H):
        torch.testing.assert_close(found[name], (first[name] + second[name][order]) / 2)
    norm = "model.norm.weight"
    torch.testing.assert_close(found[norm], (first[norm] + second[norm]) / 2)


def test_the_tokenizer_of_another_model_brings_its_special_ids(tmp_path: Path) -> None:
    a, b, moved = tmp_path / "a", tmp_path / "b", [*PLAIN, *SPECIAL[::-1]]
    first, second = write_words(a, 1, WORDS), write_words(b, 2, moved)
    found = merged(tmp_path, a, b, tokenizer_source=str(b))
    order = [WORDS.index(word) for word in moved]
    torch.testing.assert_close(found[E], (first[E][order] + second[E]) / 2)
    assert words_in(tmp_path / "out") == words_in(b)
    assert config_of(tmp_path / "out")["eos_token_id"] == moved.index("</s>")


def test_a_union_has_every_word_once_and_the_rows_of_those_that_know_it(tmp_path: Path) -> None:
    a, b, c = (tmp_path / n for n in "abc")
    first = write_words(a, 1, WORDS)
    second = write_words(b, 2, WORDS, added=["<tool>", "<both>"])
    third = write_words(c, 3, [*WORDS, "extra"], added=["<both>"])
    found = merged(tmp_path, a, b, c, tokenizer_source="union")
    words = words_in(tmp_path / "out")
    assert words.keys() == {*WORDS, "extra", "<tool>", "<both>"}
    assert {w: r for w, r in words.items() if r < len(WORDS)} == words_in(a)
    n = len(WORDS)
    assert found[E].shape[0] == config_of(tmp_path / "out")["vocab_size"] == n + 3
    torch.testing.assert_close(found[E][:n], (first[E] + second[E][:n] + third[E][:n]) / 3)
    torch.testing.assert_close(found[E][words["<tool>"]], second[E][n])
    torch.testing.assert_close(found[E][words["extra"]], third[E][n])
    torch.testing.assert_close(found[E][words["<both>"]], (second[E][n + 1] + third[E][n + 1]) / 2)


def test_the_result_of_a_union_loads_and_speaks_its_new_words(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    a, b = tmp_path / "a", tmp_path / "b"
    write_words(a, 1, WORDS, tied=False)
    write_words(b, 2, WORDS, added=["<tool>"], tied=False)
    merged(tmp_path, a, b, tokenizer_source="union")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("w1 <tool>", return_tensors="pt").input_ids
    assert ids.tolist() == [[WORDS.index("w1"), len(WORDS)]]
    assert model(ids).logits.shape[-1] == len(WORDS) + 1


@pytest.mark.parametrize("padded", ["base", "other"])
def test_rows_without_words_are_those_of_the_base(tmp_path: Path, padded: str) -> None:
    """The same words, and one side padded or resized: nothing need be said, and the result is as large as the base."""
    a, b = tmp_path / "a", tmp_path / "b"
    first = write_words(a, 1, WORDS, rows=32 if padded == "base" else None)
    second = write_words(b, 2, WORDS, rows=32 if padded == "other" else None)
    found, n = merged(tmp_path, a, b)[E], len(WORDS)
    assert found.shape == first[E].shape
    torch.testing.assert_close(found[:n], (first[E][:n] + second[E][:n]) / 2)
    torch.testing.assert_close(found[n:], first[E][n:])


def test_vocabularies_that_differ_are_an_error_that_names_every_way_out(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_words(a, 1, WORDS)
    write_words(b, 2, WORDS, added=["<tool>"])
    with pytest.raises(CheckpointError, match=r"vocabulary differs.*base.*union.*model"):
        merged(tmp_path, a, b)


def test_the_recipe_says_where_a_words_row_comes_from(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    first, second = write_words(a, 1, WORDS), write_words(b, 2, WORDS, added=["<tool>"])
    tokens = {
        "<tool>": {"source": {"kind": "model_token", "model": str(a), "token": "w3"}},
        "w5": {"source": str(b), "force": True},
        "w6": {"source": {"kind": "zero"}, "force": True},
        "<new>": {"source": {"kind": "model_token", "model": str(b), "token_id": 7}},
    }
    found = merged(tmp_path, a, b, tokenizer={"source": "union", "tokens": tokens, "pad_to_multiple_of": 8})[E]
    words = words_in(tmp_path / "out")
    n = len(WORDS)
    torch.testing.assert_close(found[words["<tool>"]], (first[E][WORDS.index("w3")] + second[E][n]) / 2)
    torch.testing.assert_close(found[words["w5"]], second[E][words["w5"]])
    assert not found[words["w6"]].any()
    torch.testing.assert_close(found[words["<new>"]], second[E][7])
    assert found.shape[0] == config_of(tmp_path / "out")["vocab_size"] == 32
    torch.testing.assert_close(found[n + 2 :], found[: n + 2].mean(0).expand(32 - n - 2, -1))


@pytest.mark.parametrize(
    ("tokenizer", "what"),
    [
        ({"sources": "base"}, "sources.*source"),
        ({"source": "base", "tokens": {"w1": "b"}}, "w1"),
        ({"source": "base", "tokens": {"w1": {"source": "nobody/here"}}}, "nobody/here"),
        ({"source": "base", "tokens": {"w1": {"source": {"kind": "model_token", "model": "A", "token": "?"}}}}, "no such word"),
        ({"source": "base", "pad_to_multiple_of": 0}, "pad_to_multiple_of"),
    ],
)
def test_what_cannot_be_carried_out_is_named(tmp_path: Path, tokenizer: dict, what: str) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_words(a, 1, WORDS)
    write_words(b, 2, WORDS)
    for setting in tokenizer.get("tokens", {}).values():
        if isinstance(setting, dict) and isinstance(setting["source"], dict):
            setting["source"]["model"] = str(a)
    with pytest.raises(RecipeError, match=what) as caught:
        merged(tmp_path, a, b, tokenizer=tokenizer)
    assert caught.value.hint


def test_both_spellings_at_once_are_an_error(tmp_path: Path) -> None:
    write_words(tmp_path / "a", 1, WORDS)
    with pytest.raises(RecipeError, match="tokenizer"):
        merged(tmp_path, tmp_path / "a", tmp_path / "a", tokenizer={"source": "base"}, tokenizer_source="base")


def test_the_bytes_do_not_depend_on_threads(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_words(a, 1, WORDS, tied=False)
    write_words(b, 2, [*PLAIN, *SPECIAL], added=["<tool>"], tied=False)
    tokenizer = {"source": "union", "pad_to_multiple_of": 32}
    for threads in (1, 4):
        merged(tmp_path, a, b, out=f"out{threads}", threads=threads, tokenizer=tokenizer)
    one, four = ((tmp_path / f"out{n}" / "model.safetensors").read_bytes() for n in (1, 4))
    assert one == four


def test_deltas_of_words_that_the_base_lacks_are_their_models_own_rows(tmp_path: Path) -> None:
    """task_arithmetic: where the base has no row for a word, the only model that has one brings it whole."""
    a, b = tmp_path / "a", tmp_path / "b"
    first, second = write_words(a, 1, WORDS), write_words(b, 2, [*PLAIN, *SPECIAL], added=["<tool>"])
    recipe = {"merge_method": "task_arithmetic", "models": [{"model": str(b), "parameters": {"weight": 0.5}}]}
    found = merged(tmp_path, a, **recipe, tokenizer_source="union")[E]
    words, theirs = words_in(tmp_path / "out"), words_in(b)
    for word in WORDS:
        mine = first[E][words[word]]
        torch.testing.assert_close(found[words[word]], mine + 0.5 * (second[E][theirs[word]] - mine))
    torch.testing.assert_close(found[words["<tool>"]], second[E][theirs["<tool>"]])
