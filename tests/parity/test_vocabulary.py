"""Vocabularies through mergekit itself: the row of every word agrees to 1e-6 of the largest entry in fp32.

Compared by word: mergekit gives new words of a union the order of a hash table. Of rows without a word (padding of the
base) mergekit keeps none; here they stay, as they do without `tokenizer_source`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mergetool.merge import load_merge_recipe, merge_to_directory, plan_merge
from tests.words import PLAIN, SPECIAL, words_in, write_words

pytestmark = pytest.mark.slow
WORDS = [*SPECIAL, *PLAIN]
MOVED = [*SPECIAL, *PLAIN[::-1]]

SCENES: dict[str, dict[str, Any]] = {
    "base": {"tokenizer_source": "base"},
    "union": {"tokenizer_source": "union"},
    "a model": {"tokenizer_source": "B"},
    "tokenizer: base": {"tokenizer": {"source": "base"}},
    "tokenizer: union, padded": {"tokenizer": {"source": "union", "pad_to_multiple_of": 16}},
    "tokens": {"tokenizer": {"source": "union", "tokens": {
        "<b>": {"source": {"kind": "model_token", "model": "A", "token": "w3"}}, "<both>": {"source": "C"},
        "w5": {"source": "B", "force": True}, "w6": {"source": {"kind": "zero"}, "force": True},
        "<new>": {"source": {"kind": "model_token", "model": "B", "token_id": 7}}}}},
}  # fmt: skip


def placed(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: placed(item, places) for key, item in value.items()}
    return places.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("method", ["linear", "linear without a base", "task_arithmetic", "ties"])
@pytest.mark.parametrize("scene", SCENES)
def test_the_row_of_every_word_is_mergekits(tmp_path: Path, scene: str, method: str) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    write_words(tmp_path / "a", 1, WORDS, tied=False)
    write_words(tmp_path / "b", 2, MOVED, added=["<b>", "<both>"], tied=False)
    write_words(tmp_path / "c", 3, WORDS, added=["<both>"], rows=32, tied=False)
    places = {name.upper(): str(tmp_path / name) for name in "abc"}
    models = [{"model": places[m], "parameters": {"weight": w, "density": 0.7}} for m, w in (("B", 0.7), ("C", 0.4))]
    if method.startswith("linear"):
        models = [{"model": m["model"], "parameters": {"weight": m["parameters"]["weight"]}} for m in models]
        models.append({"model": places["A"], "parameters": {"weight": 0.5}})
    elif method == "task_arithmetic":
        models = [{"model": m["model"], "parameters": {"weight": m["parameters"]["weight"]}} for m in models]
    recipe = {"merge_method": method.split()[0], "base_model": places["A"], "models": models, "dtype": "float32"}
    if method.endswith("without a base"):
        del recipe["base_model"]
        if "base" in str(SCENES[scene]):
            pytest.skip("mergekit takes the tokenizer of a base that is there")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**recipe, **placed(SCENES[scene], places)}))
    text = (tmp_path / "r.yaml").read_text()
    run_merge(
        MergeConfiguration.model_validate(yaml.safe_load(text)), str(tmp_path / "theirs"), MergeOptions(write_model_card=False)
    )
    merge_to_directory(plan_merge(load_merge_recipe(tmp_path / "r.yaml"), "native"), tmp_path / "ours")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    our_words, their_words = words_in(tmp_path / "ours"), words_in(tmp_path / "theirs")
    assert our_words.keys() == their_words.keys()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        found = ours[name]
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            found, tensor = found[[our_words[w] for w in their_words]], tensor[[*their_words.values()]]
        torch.testing.assert_close(
            found, tensor, rtol=1e-6, atol=1e-6 * float(tensor.abs().max()), msg=lambda m, n=name: f"{n}: {m}"
        )
