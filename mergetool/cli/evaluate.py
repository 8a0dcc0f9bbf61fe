"""mergetool evaluate: reward and tax of one model, or of several beside the first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mergetool.cli.completion import metric_names
from mergetool.cli.shell import emit_json, note, progress_bar

DATA, BENCHMARKS, JUDGES, ANSWERS = "Data", "Public benchmarks", "Reward model and judge", "Limits"


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Checkpoint directories, lab:NAME or Hub ids; MODEL+ADAPTER. Of several, each is compared with the first.",
            show_default=False,
        ),
    ],
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
    dtype: Annotated[
        str | None,
        typer.Option(help="Type that models are measured in.", show_default="float32 on a CPU, else the checkpoint's"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests of a benchmark at a time.", rich_help_panel=BENCHMARKS)] = 16,
    output_path: Annotated[Path | None, typer.Option(help="A directory for results.json.", show_default=False)] = None,
    log_samples: Annotated[
        bool, typer.Option("--log-samples", help="Write the answers to the data's prompts there too, as samples.jsonl.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Measure models: rewards, tax on your own data, and public benchmarks."""
    from mergetool.cli.evaluate_output import as_facts, print_differences, print_scores, write
    from mergetool.cli.evaluate_tasks import Files, benchmarks, data_tasks, names_of
    from mergetool.config.sources import resolve_source
    from mergetool.errors import RecipeError
    from mergetool.evaluate import JudgeSettings

    here = Path.cwd()
    if log_samples and output_path is None:
        raise RecipeError("--log-samples needs --output-path", "give the directory for samples.jsonl")
    if twice := next((model for model in models if models.count(model) > 1), None):
        raise RecipeError(f"{twice} is named twice", "name each model once")
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
        asked.append(benchmarks(public, num_fewshot, limit, chat, include or [], unsafe_code, batch_size))
    found = {}
    for model in models:
        found[model] = _measured(model, asked, resolve_source(reference, here) if reference else None, device, dtype)
    for path in write(found, output_path, log_samples) if output_path else []:
        note(f"written: {path}")
    if json:
        emit_json(as_facts(found))
        return
    for model, scores in found.items():
        print_scores(model, scores)
    if len(found) > 1:
        print_differences(found)


def _measured(
    model: str, asked: list[Any], sft: Path | str | None, device: str | None, dtype: str | None
) -> dict[str, dict[str, Any]]:
    """One model's scores, those by row among them."""
    from mergetool.config.sources import resolve_source
    from mergetool.evaluate import evaluate as run
    from mergetool.hub.loading import load_tokenizer
    from mergetool.hub.references import local_directory
    from mergetool.study.execution.live_model import LiveModel

    here = Path.cwd()
    name, plus, adapter = model.rpartition("+")
    if not (plus and name and adapter) or Path(model).exists():
        name = model
    source = resolve_source(name, here)
    for place in (source, sft):
        if isinstance(place, str):  # it lies on the Hub
            with progress_bar("fetching") as update:
                local_directory(place, update)
    live, tokenizer = source, None
    if name != model:  # the adapter merged into the model's weights, as `mergetool merge` reads it, without rounding
        placed = f"{source}+{resolve_source(adapter, here)}"
        held = LiveModel(source, device, dtype)
        held.put_merge(
            {"merge_method": "linear", "models": [{"model": placed, "parameters": {"weight": 1}}], "dtype": "float32"}, model
        )
        live, tokenizer = held.model, load_tokenizer(source)
    with progress_bar("measuring") as update:
        return run(live, asked, sft, tokenizer, device, dtype, update)
