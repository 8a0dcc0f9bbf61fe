"""What goes on beside the training: reports, a stop on a signal, and the mark of a whole checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mergetool.align.training import updates_per_sampling
from mergetool.align.workspace import mark_complete
from mergetool.align.written import note_amount

Report = Callable[[str, dict[str, Any]], None]
"""Called with an event's name and its facts: rows, data, fisher, reference, preview, plan, resume,
step, log, checkpoint, result."""


class Stop:
    """Set by the first Ctrl-C (or SIGTERM); the run then writes a checkpoint after its current step."""

    asked = False


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """The first signal asks for a stop; a second one interrupts at once. Only the main thread may catch signals."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        stop.asked = True
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agreed(stop: Stop, processes: int) -> bool:
    """True where any process was asked to stop: all have to stop after the same step."""
    if processes > 1:
        from accelerate.utils import gather_object

        stop.asked = any(gather_object([stop.asked]))
    return stop.asked


def watcher(stop: Stop, report: Report, method: str = "adamw") -> Any:
    """The trainer's callback that does all three; the last of its callbacks, so that a marked checkpoint is whole.

    Args:
        stop: looked at after every step.
        report: told of what happens.
        method: the recipe's, whose amount a checkpoint notes.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        """Tells what happens, marks whole checkpoints, and turns a signal into a checkpoint and a stop."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            report("step", {"step": state.global_step, "steps": state.max_steps})
            # answers that are still to be learnt from are in no checkpoint
            between = state.global_step % updates_per_sampling(args) == 0
            if _agreed(stop, args.world_size) and between:
                control.should_save = True
                control.should_training_stop = True
            return control

        def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
            report("log", {"step": state.global_step, **(logs or {})})

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                path = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                note_amount(path, kwargs.get("optimizer"), method)
                mark_complete(path)
                report("checkpoint", {"step": state.global_step, "path": str(path)})

    return Watch()
