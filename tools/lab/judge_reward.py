"""The lab's own judge as a reward: what an answer's parts are worth."""

from tools.lab.judge import question_of, score


def judge(*, prompts, completions, **columns):
    """The judge's score of each completion."""
    return [float(score(question_of(text(p)), text(c))) for p, c in zip(prompts, completions, strict=True)]


def text(value):
    return value if isinstance(value, str) else value[0]["content"]
