"""A reward for `align`: TRL calls it with the prompts, the sampled completions, and the rows' other columns."""


def brief(*, prompts, completions, **columns):
    """1 for an empty answer, falling by a tenth with every word."""
    return [1.0 - 0.1 * len(text(completion).split()) for completion in completions]


def text(completion):
    """A completion is text, or a list with one message where the prompts are conversations."""
    return completion if isinstance(completion, str) else completion[0]["content"]
