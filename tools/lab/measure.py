"""What the lab measures of a model: skills (the tax) and preference pairs (the reward). Small batches, fp32, CPU."""

from __future__ import annotations

from tools.lab.train import END, PAD


def _coded(tokenizer, pairs: list[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    answers = tokenizer([answer for _, answer in pairs], add_special_tokens=False)["input_ids"]
    return [(prompt, [*answer, END]) for prompt, answer in zip(prompts, answers, strict=True)]


def log_probabilities(model, tokenizer, pairs: list[tuple[str, str]], size: int = 64):
    """Summed log-probability and length of each answer (its end token included) given its prompt.

    Returns:
        two float tensors of shape (len(pairs),): nats, tokens.
    """
    import torch

    coded = _coded(tokenizer, pairs)
    total, length = torch.zeros(len(coded)), torch.zeros(len(coded))
    order = sorted(range(len(coded)), key=lambda at: len(coded[at][0]) + len(coded[at][1]))
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            width = max(len(coded[at][0]) + len(coded[at][1]) for at in chosen)
            ids = torch.tensor([(p + a + [PAD] * width)[:width] for p, a in (coded[at] for at in chosen)])
            scores = model(input_ids=ids[:, :-1]).logits.float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
            for row, at in enumerate(chosen):
                prompt, answer = coded[at]
                total[at] = scores[row, len(prompt) - 1 : len(prompt) + len(answer) - 1].sum()
                length[at] = len(answer)
    return total, length


def complete(model, tokenizer, prompts: list[str], new_tokens: int = 16, size: int = 100) -> list[str]:
    """Greedy completions. Prompts of one length share a batch, so nothing is padded."""
    import torch

    coded = tokenizer(prompts)["input_ids"]
    by_length: dict[int, list[int]] = {}
    for at, ids in enumerate(coded):
        by_length.setdefault(len(ids), []).append(at)
    answers = [""] * len(prompts)
    model.eval()
    with torch.inference_mode():
        for places in by_length.values():
            for start in range(0, len(places), size):
                chosen = places[start : start + size]
                ids = torch.tensor([coded[at] for at in chosen])
                past, written, done = None, [], torch.zeros(len(chosen), dtype=torch.bool)
                for _ in range(new_tokens):
                    out = model(input_ids=ids, past_key_values=past, use_cache=True)
                    past, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
                    written.append(ids[:, 0].masked_fill(done, PAD))
                    done |= ids[:, 0] == END
                    if done.all():
                        break
                rows = torch.stack(written, 1).tolist()
                for at, row in zip(chosen, rows, strict=True):
                    # no end token within the limit: the text stands as it is, and will not match
                    text = tokenizer.decode(row, skip_special_tokens=True).strip()
                    answers[at] = text if END in row else text + " ..."
    return answers


def skills(model, tokenizer, rows: list[dict]) -> dict[str, float]:
    """Exact match of greedy completions (all, and by skill) and nll per completion token."""
    found = complete(model, tokenizer, [row["prompt"] for row in rows])
    hits: dict[str, list[float]] = {"exact_match": []}
    for row, text in zip(rows, found, strict=True):
        hit = float(text == row["completion"])
        hits["exact_match"].append(hit)
        hits.setdefault(row["skill"], []).append(hit)
    total, length = log_probabilities(model, tokenizer, [(row["prompt"], row["completion"]) for row in rows])
    return {"nll": float(-total.sum() / length.sum())} | {name: sum(all_) / len(all_) for name, all_ in hits.items()}


def preferences(model, reference, tokenizer, rows: list[dict], beta: float = 0.1) -> dict[str, float]:
    """Implicit-reward accuracy (a tie counts half) and margin against the reference; `beta` scales the margin."""
    chosen = [(row["prompt"], row["chosen"]) for row in rows]
    rejected = [(row["prompt"], row["rejected"]) for row in rows]
    reward = [
        log_probabilities(model, tokenizer, side)[0] - log_probabilities(reference, tokenizer, side)[0]
        for side in (chosen, rejected)
    ]
    margin = beta * (reward[0] - reward[1])
    accuracy = ((margin > 0).float() + 0.5 * (margin == 0).float()).mean()
    return {"accuracy": float(accuracy), "margin": float(margin.mean())}
