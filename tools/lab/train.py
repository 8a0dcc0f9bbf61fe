"""Tokenizer, base training and SFT of the lab's model. Plain loops: nothing here is part of the product."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.lab.world import ASSISTANT, USER

SPECIALS = ("<|pad|>", "<|begin|>", "<|end|>", "<|unk|>", USER, ASSISTANT)
PAD, BEGIN, END = 0, 1, 2
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('the lab model knows the roles user and assistant') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY, HIDDEN, LAYERS, LENGTH = 1024, 96, 4, 96


def make_tokenizer(corpus: list[str]):
    """A BPE tokenizer of the Llama kind: word-start marks, single digits, bytes as the fallback.

    A mark before every segment and stops apart from words, so that an answer right after <|assistant|> is the same
    tokens as inside a sentence of the base corpus: otherwise nothing known carries over.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token="<|unk|>", byte_fallback=True, fuse_unk=False))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[*SPECIALS, *fallback], show_progress=False, min_frequency=2
    )
    inner.train_from_iterator(corpus, trainer)
    inner = _plain_bytes(inner)
    inner.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", BEGIN)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<|pad|>",
        bos_token="<|begin|>",
        eos_token="<|end|>",
        unk_token="<|unk|>",
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=128,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def _plain_bytes(tokenizer):
    """The trainer can only reserve the byte tokens as special; make them ordinary entries of the vocabulary."""
    import json

    from tokenizers import Tokenizer

    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [entry for entry in state["added_tokens"] if entry["content"] in SPECIALS]
    return Tokenizer.from_str(json.dumps(state))


def make_model(seed: int, vocabulary: int):
    """A Llama with tied embeddings and grouped-query attention, from scratch."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=HIDDEN,
            intermediate_size=256,
            num_hidden_layers=LAYERS,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            rms_norm_eps=1e-5,
            pad_token_id=PAD,
            bos_token_id=BEGIN,
            eos_token_id=END,
            initializer_range=0.04,
            attention_dropout=0.0,
        )
    )


def fit(model, batches: Iterator[tuple], steps: int, rate: float, log: Callable[[str], None], name: str) -> None:
    """AdamW with warm-up and a cosine to a tenth; a batch is (ids, labels), labels shifted by the loss."""
    import torch
    from torch.nn.functional import cross_entropy

    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=rate,
        betas=(0.9, 0.98),
    )
    warm = max(1, steps // 20)

    def shape(step: int) -> float:
        return min((step + 1) / warm, 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
    model.train()
    began, mean = time.time(), 0.0
    for step, (ids, labels) in enumerate(itertools.islice(batches, steps), 1):
        logits = model(input_ids=ids[:, :-1]).logits
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean = loss.item() if step == 1 else 0.98 * mean + 0.02 * loss.item()
        if step % 200 == 0 or step == steps:
            log(f"{name} step {step}/{steps} loss {mean:.3f} {time.time() - began:.0f} s")


def packed(documents: Iterator[str], tokenizer, rows: int) -> Iterator[tuple]:
    """Documents end to end, cut into rows of LENGTH tokens."""
    import torch

    stream: list[int] = []
    need = rows * LENGTH
    while True:
        while len(stream) < need:
            for ids in tokenizer(list(itertools.islice(documents, 512)))["input_ids"]:
                stream += [*ids, END]
        ids = torch.tensor(stream[:need]).view(rows, LENGTH)
        stream = stream[need:]
        yield ids, ids


def completions(rows: list[dict], tokenizer, size: int, seed: int) -> Iterator[tuple]:
    """Prompt + completion + end, loss on the completion; rows of like length share a batch, batches are shuffled."""
    import torch

    coded = []
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        coded.append((prompt, [*answer, END]))
    rng = random.Random(seed)
    while True:
        rng.shuffle(coded)
        order = sorted(coded, key=lambda pair: (len(pair[0]) + len(pair[1])) // 4)
        batches = [order[at : at + size] for at in range(0, len(order), size)]
        rng.shuffle(batches)
        for batch in batches:
            width = max(len(prompt) + len(answer) for prompt, answer in batch)
            ids = torch.full((len(batch), width), PAD)
            labels = torch.full((len(batch), width), -100)
            for at, (prompt, answer) in enumerate(batch):
                ids[at, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
                labels[at, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
            yield ids, labels


def save(model, tokenizer, folder: Path):
    """An ordinary checkpoint directory in bf16; returns the model as it is stored, in fp32 again."""
    import torch

    model = model.to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.float()
