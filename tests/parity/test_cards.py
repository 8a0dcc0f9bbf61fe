"""Recipes in the shapes in which they stand on model cards run unchanged, and are what mergekit makes of them in fp32.

Their models and numbers are other ones; what is kept of a card is how its recipe is written.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer

from mergetool.merge import load_merge_recipe, merge_to_directory, plan_merge
from tests.helpers import random_weights, write_checkpoint

pytestmark = pytest.mark.slow
CONFIG = {"num_hidden_layers": 4, "tie_word_embeddings": False}

CARDS = {
    "slices with a base each, and a model with more words": """
merge_method: linear
dtype: float32
slices:
  - base_model: a
    sources:
    - {model: a, layer_range: [0, 2], parameters: {weight: 0.7}}
    - {model: b, layer_range: [0, 2], parameters: {weight: 0.3}}
  - base_model: b
    sources:
    - {model: b, layer_range: [2, 4], parameters: {weight: [0.1, 0.9]}}
    - {model: chat, layer_range: [1, 3], parameters: {weight: 0.3}}
parameters:
  normalize: true
tokenizer_source: base
base_model: a
""",
    "a block that adds nothing until it is trained": """
merge_method: passthrough
dtype: float32
slices:
  - sources: [{model: a, layer_range: [0, 3]}]
  - sources:
    - model: a
      layer_range: [1, 3]
      parameters:
        scale:
          - {filter: o_proj, value: 0.0}
          - {filter: down_proj, value: 0.0}
          - {value: 1.0}
  - sources: [{model: a, layer_range: [3, 4]}]
""",
    "words that stand where they are not read": """
models:
  - model: a
    density: 0.9
    parameters:
      weight: [0.5]
  - model: b
    layer_range: [0, 4]
    parameters:
      weight: [0.7]
base_model: base
merge_method: multislerp
tokenizer:
  source: base
chat_template: llama3
parameters:
  normalize_weights: false
  eps: 1e-8
  dtype: bfloat16
pad_to_multiple_of: 8
int8_mask: true
dtype: float32
""",
    "an adapter on the base": """
base_model: base+lora
models:
  - model: a
  - model: b
  - model: {model: {path: base}, lora: {path: lora}}
merge_method: sce
dtype: float32
parameters:
  normalize: true
  select_topk: 0.5
""",
    "modules with gradients of eight values": """
base_model: base
dtype: float32
merge_method: della_linear
modules:
  default:
    slices:
    - sources:
      - layer_range: [0, 4]
        model: a
        parameters: {density: 1.0, epsilon: 0.0, weight: [0.9, 0.2, 0.2, 0.2, 0.95, 0.8, 0.4, 0.2]}
      - layer_range: [0, 4]
        model: b
        parameters: {density: 1.0, epsilon: 0.0, weight: [0.1, 0.9, 1.0, 0.95, 0.4, 0.4, 0.5, 0.3]}
      - layer_range: [0, 4]
        model: base
parameters:
  lambda: 1.0
  normalize: 1.0
tokenizer: {}
""",
    "words of two chat formats": """
merge_method: linear
models:
  - model: chat
    parameters: {weight: 0.6}
  - model: tool
    parameters: {weight: 0.5}
  - model: a
    parameters: {weight: 0.4}
dtype: float32
tokenizer:
  source: union
  pad_to_multiple_of: 32
  tokens:
    <|im_start|>:
      source: "chat"
    <|im_end|>:
      source: "tool"
      force: true
    <|renamed|>:
      source: {kind: "model_token", model: "tool", token: "<tool>"}
chat_template: auto
""",
}  # fmt: skip


def with_words(place: Path, weights: dict[str, torch.Tensor], words: list[str]) -> None:
    """A model whose tokenizer and embeddings have words more."""
    rng = torch.Generator().manual_seed(len(words[0]))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = torch.cat([weights[name], torch.randn(len(words), 32, generator=rng) * 0.1])
    write_checkpoint(place, weights, **CONFIG, vocab_size=64 + len(words))
    tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in words])
    tokenizer.save(str(place / "tokenizer.json"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("cards")
    base = random_weights(0, **CONFIG)
    write_checkpoint(root / "base", base, **CONFIG)
    for seed, name in enumerate("ab", 1):
        write_checkpoint(root / name, random_weights(seed, near=base, **CONFIG), **CONFIG)
    with_words(root / "chat", random_weights(3, near=base, **CONFIG), ["<|im_start|>", "<|im_end|>"])
    with_words(root / "tool", random_weights(4, near=base, **CONFIG), ["<|im_end|>", "<tool>"])
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(root / "base"), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(root / "lora")
    return root


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.filterwarnings("ignore")
def test_a_cards_recipe_is_what_mergekit_makes_of_it(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    monkeypatch.chdir(models)
    Path("recipe.yaml").write_text(CARDS[name])
    plan = plan_merge(load_merge_recipe("recipe.yaml"), "native")
    merge_to_directory(plan, tmp_path / "ours")
    options = MergeOptions(write_model_card=False, lora_merge_cache=str(tmp_path / "cache"))
    run_merge(MergeConfiguration.model_validate(yaml.safe_load(CARDS[name])), str(tmp_path / "theirs"), options)
    ours, theirs = (
        {n: t for part in (tmp_path / side).glob("*.safetensors") for n, t in load_file(part).items()}
        for side in ("ours", "theirs")
    )
    words, known = (
        Tokenizer.from_file(str(tmp_path / side / "tokenizer.json")).get_vocab(with_added_tokens=True)
        for side in ("ours", "theirs")
    )
    assert words.keys() == known.keys()
    assert ours.keys() == theirs.keys()
    for tensor, value in theirs.items():
        found = ours[tensor]
        assert found.shape == value.shape
        if "embed_tokens" in tensor or "lm_head" in tensor:  # new words of a union have the order of a hash table there
            found, value = found[[words[w] for w in known]], value[[*known.values()]]
        torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-6 * float(value.abs().max()), msg=f"{name}: {tensor}")
    layers = [json.loads((tmp_path / side / "config.json").read_text())["num_hidden_layers"] for side in ("ours", "theirs")]
    assert layers[0] == layers[1]
