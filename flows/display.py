"""Live progress of a run in the terminal: moving bars for a person, plain lines for a log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from tasks.progress import Progress as Event
from tasks.progress import listening

_MARK = {"done": "[green]done  [/]", "cached": "[cyan]cached[/]", "failed": "[red]failed[/]", "note": "[bold]note  [/]"}


@contextmanager
def display(console: Console) -> Iterator[None]:
    """Show progress on a console while the context lasts."""
    lock = threading.Lock()
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[message]}", style="dim"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    running: dict[str, TaskID] = {}

    def listen(event: Event) -> None:
        with lock:
            if event.state == "running":
                if event.label not in running:
                    running[event.label] = bars.add_task(event.label, total=1.0, message="")
                bars.update(running[event.label], completed=event.fraction or 0.0, message=event.message)
                return
            if event.label in running:
                bars.remove_task(running.pop(event.label))
            if event.state == "cached" and console.is_terminal:
                return
            detail = f"{event.wall_s:.1f} s" if event.wall_s is not None else event.message
            bars.console.print(f"{_MARK[event.state]} {event.label}  [dim]{detail}[/]", highlight=False)

    with bars, listening(listen):
        yield
