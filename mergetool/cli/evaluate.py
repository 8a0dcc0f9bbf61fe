"""mergetool evaluate: reward and tax of one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mergetool.cli.completion import metric_names
from mergetool.cli.shell import emit_json, note, print_table, progress_bar

DATA, BENCHMARKS, JUDGES, ANSWERS = "Data", "Public benchmarks", "Reward model and judge", "Limits"


def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint directory, lab:NAME or a Hub id.", show_default=False)],
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Metrics, lm-evaluation-harness tasks (TASK, TASK:METRIC) and suites (omo-14, ama), separated by commas; "
            "default: the metrics that the data allow.",
            show_default=False,
            autocompletion=metric_names,
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The SFT model, to which rewards and kl_to_sft are relative.", show_default=False)
    ] = None,
    reward: Annotated[
        str | None, typer.Option(help="Preference pairs; needs --reference.", show_default=False, rich_help_panel=DATA)
    ] = None,
    tax: Annotated[
        list[str] | None,
        typer.Option(help="Prompts and completions, or text; may be repeated.", show_default=False, rich_help_panel=DATA),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            help="Prompts that the model answers, for reward_model, win_rate and code_switching; may be repeated.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    reward_model: Annotated[
        str | None,
        typer.Option(help="A sequence-classification model with one label.", show_default=False, rich_help_panel=JUDGES),
    ] = None,
    judge_url: Annotated[
        str | None,
        typer.Option(help="An OpenAI-compatible endpoint, with /v1.", show_default=False, rich_help_panel=JUDGES),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="The judge, as the endpoint calls it.", show_default=False, rich_help_panel=JUDGES)
    ] = None,
    judge_key_env: Annotated[
        str, typer.Option(help="Environment variable with the endpoint's key; '' if it asks for none.", rich_help_panel=JUDGES)
    ] = "OPENAI_API_KEY",
    include: Annotated[
        list[Path] | None,
        typer.Option(help="A directory of YAML tasks; may be repeated.", show_default=False, rich_help_panel=BENCHMARKS),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(
            min=0, help="Solved examples before each question.", show_default="the task's own", rich_help_panel=BENCHMARKS
        ),
    ] = None,
    unsafe_code: Annotated[
        bool,
        typer.Option(
            "--unsafe-code", help="Let tasks execute what the model writes (HumanEval, MBPP).", rich_help_panel=BENCHMARKS
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Rows of a file, or documents of a task.", show_default="all", rich_help_panel=ANSWERS),
    ] = None,
    beta: Annotated[float, typer.Option(help="Scale of the reward margin.", rich_help_panel=ANSWERS)] = 0.1,
    max_length: Annotated[
        int, typer.Option(min=2, help="Tokens of prompt and completion together.", rich_help_panel=ANSWERS)
    ] = 1024,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens of a greedy answer.",
            show_default="as the reference answers need for exact_match, else 256",
            rich_help_panel=ANSWERS,
        ),
    ] = None,
    template: Annotated[
        str, typer.Option(help="Prompt text; {prompt} is the row's own.", rich_help_panel=ANSWERS)
    ] = "{prompt}",
    chat: Annotated[
        bool, typer.Option("--chat", help="Put prompts and questions through the chat template.", rich_help_panel=ANSWERS)
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...", show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Measure one model: rewards, tax on your own data, and public benchmarks."""
    from mergetool.cli.evaluate_tasks import Files, benchmarks, data_tasks, names_of
    from mergetool.config.sources import resolve_source
    from mergetool.errors import RecipeError
    from mergetool.evaluate import JudgeSettings
    from mergetool.hub.references import local_directory

    here = Path.cwd()
    if bool(judge_url) != bool(judge_model):
        raise RecipeError("--judge-url and --judge-model belong together", "give both: the endpoint, and the model behind it")
    if "{prompt}" not in template:
        raise RecipeError("--template has no {prompt}", "write where the prompt goes")
    limits: dict[str, Any] = {"max_length": max_length, "max_new_tokens": max_new_tokens, "template": template, "chat": chat}
    limits["reward_model"] = resolve_source(reward_model, here) if reward_model else None
    limits["judge"] = JudgeSettings(judge_url, judge_model, judge_key_env or None) if judge_url and judge_model else None
    files = Files(reward, tuple(tax or ()), tuple(prompts or ()), reference is not None)
    metrics, public = names_of(tasks)
    asked: list[Any] = []
    if not public or metrics or files.given:
        asked += data_tasks(files, metrics, limit, beta, limits)
    if public:
        asked.append(benchmarks(public, num_fewshot, limit, chat, include or [], unsafe_code))
    from mergetool.evaluate import evaluate as run

    sft = resolve_source(reference, here) if reference else None
    source = resolve_source(model, here)
    for place in (source, sft):
        if isinstance(place, str):  # it lies on the Hub
            with progress_bar("fetching") as update:
                local_directory(place, update)
    with progress_bar("measuring") as update:
        found = run(source, asked, sft, device=device, progress=update)
    shown = {name: {key: value for key, value in score.items() if key != "rows"} for name, score in found.items()}
    if json:
        emit_json({"model": model, "scores": shown})
        return
    _print(model, shown)


def _print(model: str, scores: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title=model, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name in ("metric", "value", "95 % over rows", "rows", "unit", "better"):
        table.add_column(name, justify="right" if name in ("value", "95 % over rows", "rows") else "left")
    for name, score in scores.items():
        table.add_row(
            name,
            f"{score['value']:.4f}",
            f"{score['low']:.4f} to {score['high']:.4f}",
            str(score["n"]),
            score["unit"],
            "higher" if score["higher_is_better"] else "lower",
        )
    print_table(table)
    for left_out in {score["left_out"] for score in scores.values() if score["left_out"]}:
        note(f"{left_out} rows left out: their prompt alone fills max_length")
    for name, score in scores.items():
        if score.get("without_verdict"):
            note(f"{name}: {score['without_verdict']} replies of the judge held no verdict; their pairs count as ties")
