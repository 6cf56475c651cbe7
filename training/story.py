"""How a long job tells what it does: a line per stage with its time, a bar while it runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Story:
    """Prints to `console`; `last` is how many seconds the latest stage took."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last = 0.0

    def say(self, text: str, end: str = "\n") -> None:
        """A line or a paragraph, with rich's markup."""
        self.console.print(text, highlight=False, end=end)

    def command(self, text: str) -> None:
        """A line that holds something to copy, so never broken in two."""
        self.console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def stage(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Yields a callback (steps done, steps in all) that moves a bar; the bar is only drawn on a terminal."""
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        started = time.perf_counter()
        with bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        self.last = time.perf_counter() - started
        self.say(f"[bold]{title}[/] [dim]({self.last:.0f} s)[/]")
