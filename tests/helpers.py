"""Small real checkpoints for tests: a two-layer Llama, written with the safetensors library."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "hidden_act": "silu", "dtype": "float32",
}  # fmt: skip


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of a Llama, as save_pretrained writes them."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    found = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        found |= {
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.mlp.down_proj.weight": (hidden, inner),
            f"{at}.mlp.gate_proj.weight": (inner, hidden),
            f"{at}.mlp.up_proj.weight": (inner, hidden),
            f"{at}.post_attention_layernorm.weight": (hidden,),
            f"{at}.self_attn.k_proj.weight": (kv, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, hidden),
            f"{at}.self_attn.q_proj.weight": (hidden, hidden),
            f"{at}.self_attn.v_proj.weight": (kv, hidden),
        }
    found["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (vocab, hidden)
    return found


def random_weights(seed: int, near: dict[str, torch.Tensor] | None = None, **config: object) -> dict[str, torch.Tensor]:
    """fp32 weights; with `near` a small random step away from it."""
    rng = torch.Generator().manual_seed(seed)
    made = {n: torch.randn(s, generator=rng) * 0.1 for n, s in shapes({**CONFIG, **config}).items()}
    return {n: near[n] + 0.1 * w for n, w in made.items()} if near else made


def write_checkpoint(
    directory: Path, weights: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32, shards: int = 1, **config: object
) -> Path:
    """A checkpoint directory with config, weights and a tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = {**CONFIG, **config, "dtype": str(dtype).removeprefix("torch.")}
    (directory / "config.json").write_text(json.dumps(settings))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "temperature": 0.7}))
    write_tokenizer(directory)
    tensors = {n: w.to(dtype).contiguous() if w.is_floating_point() else w for n, w in weights.items()}
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return directory
    names = list(tensors)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {n: tensors[n] for n in names[i::shards]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def write_tokenizer(directory: Path, extra: str | None = None) -> None:
    """A word-level tokenizer of 64 words, as a fast tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<s>", "</s>", "<pad>", "<unk>", *(f"w{i}" for i in range(60))]
    if extra:
        words[-1] = extra
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
        "unk_token": "<unk>", "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }  # fmt: skip
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def write_triple(root: Path, dtype: torch.dtype = torch.float32, **config: object) -> dict[str, Path]:
    """base, sft and rlhf under `root`, each a small step from the one before."""
    base = random_weights(0, **config)
    sft = random_weights(1, near=base, **config)
    rlhf = random_weights(2, near=sft, **config)
    named = {"base": base, "sft": sft, "rlhf": rlhf}
    return {name: write_checkpoint(root / name, weights, dtype, **config) for name, weights in named.items()}


def combined(
    name: str,
    tensors: list[torch.Tensor],
    options: dict,
    weights: list[float] | None = None,
    step: int = 37,
    own: list | None = None,
) -> torch.Tensor:
    """What a consensus makes of tensors in memory, put together from parts of `step` entries."""
    from mergetool.ops.blocks import reader
    from mergetool.ops.consensus import WholeInputs, consensus

    by, flat, ones = consensus(name), [tensor.reshape(-1) for tensor in tensors], [1.0] * len(tensors)
    shape, numel = tuple(tensors[0].shape), tensors[0].numel()
    reads = [reader(tensor) for tensor in tensors]
    statistic = by.statistic(WholeInputs(reads, numel, weights or ones, ones, options, 1, shape, own or [{}] * len(tensors)))
    parts = []
    for start in range(0, numel, step):
        stop = min(start + step, numel)
        buffers: dict[str, torch.Tensor] = {}

        def buffer(what: str, n: int = stop - start, held: dict[str, torch.Tensor] = buffers) -> torch.Tensor:
            return held.setdefault(what, torch.full((n,), torch.nan))

        pieces = [one[start:stop].clone() for one in flat]
        parts.append(by.combine(pieces, by.at(statistic, start, stop), buffer).clone())
    return torch.cat(parts).view(shape)
