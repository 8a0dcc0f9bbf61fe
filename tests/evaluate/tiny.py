"""A tokenizer of bytes and Llamas of a few thousand parameters."""

from __future__ import annotations

from pathlib import Path

PAIRS = [{"prompt": f"q{at}", "chosen": f" yes {at}", "rejected": f" no no {at}"} for at in range(20)]
SKILLS = [{"prompt": f"say {at}", "completion": str(at)} for at in range(10)]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer():
    """Every byte is a token, after <pad> and <eos>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: at for at, text in enumerate(["<pad>", "<eos>", *letters])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<pad>", "<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", chat_template=TEMPLATE)


def llama(seed: int = 0, tied: bool = True, layers: int = 2):
    """A random Llama over that vocabulary, fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=258,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            tie_word_embeddings=tied,
            initializer_range=0.2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=1,
        )
    ).eval()


def save(path: Path, seed: int = 0) -> Path:
    """A checkpoint directory with the tokenizer."""
    llama(seed).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def reward_model(path: Path, labels: int = 1, template: bool = False, seed: int = 9) -> Path:
    """A random sequence-classification Llama over that vocabulary, with the tokenizer."""
    import torch
    from transformers import LlamaForSequenceClassification

    config = llama().config
    config.num_labels = labels
    torch.manual_seed(seed)
    LlamaForSequenceClassification(config).save_pretrained(path)
    own = tokenizer()
    own.chat_template = TEMPLATE if template else None
    own.save_pretrained(path)
    return path
