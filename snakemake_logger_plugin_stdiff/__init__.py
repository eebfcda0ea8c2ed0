"""Progress of a run in plain words: steps done, images per second, time left, logs of failures.

Snakemake finds this package by its name; `logger: stdiff` in a profile turns it on. Snakemake's
full log stays in `.snakemake/log`. With `--dry-run`, `--printshellcmds` or `--verbose` the output
is Snakemake's own.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from logging import WARNING, LogRecord
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from snakemake_interface_logger_plugins.base import LogHandlerBase

from snakemake_logger_plugin_stdiff.steps import expected_s, step_name

# A tqdm bar: 123/456 [00:10<00:20, 12.3image/s]; if slow, 1.23s/image.
_BAR = re.compile(r"(\d+)/(\d+) \[[^<\]]*<([\d:?]+), *([\d.?]+(?:\w+/s|s/\w+))")
_ROUTINE = re.compile(
    "Building DAG|localrules directive|Using (shell|profile|workflow)|host:|Select jobs|Execute "
    "|Assuming|Shutting down|Exiting because|Singularity|Conda|None$|$"
)
_MAX_LINES_PER_STEP = 20
_LAST_LOG_LINES = 15
_SHOWN_JOBS = 8
_SHARE_BEFORE_ESTIMATE = 0.05


@dataclass
class Job:
    """A running job; ``start`` in seconds since 1970."""

    rule: str
    name: str
    log: Path | None
    start: float

    def progress(self) -> tuple[int, int, str]:
        """Images done, all images and a status text, from the last tqdm bar of the log."""
        # An older log was written by an earlier attempt.
        if self.log and self.log.is_file() and self.log.stat().st_mtime >= self.start:
            for done, total, left, rate in reversed(_BAR.findall(_end(self.log))):
                return int(done), int(total), f"{done}/{total}, {rate}, {left} left"
        return 0, 1, _duration(time.time() - self.start)


class LogHandler(LogHandlerBase):
    """Prints finished jobs and failures; on a terminal, running jobs are shown below them."""

    writes_to_stream, writes_to_file, needs_rulegraph = True, False, False
    has_filter = has_formatter = False  # Snakemake attaches its own.

    def __post_init__(self) -> None:
        settings = self.common_settings
        stream = sys.stdout if settings.stdout else sys.stderr
        # FORCE_COLOR would put control characters into the logs of CI.
        self.console = Console(file=stream, force_terminal=stream.isatty(), highlight=False)
        self.verbatim = (
            settings.dryrun or settings.verbose or settings.debug_dag or settings.printshellcmds
        )
        self.jobs: dict[int, Job] = {}
        self.total: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.start, self.live, self.closed = time.time(), None, threading.Event()

    def emit(self, record: LogRecord) -> None:
        """Print a record, or update the status with it."""
        event, text = getattr(record, "event", None), record.getMessage()
        if self.verbatim:
            self._print(self.format(record))
        elif handle := getattr(self, f"_on_{event}", None):
            handle(record)
        elif record.levelno >= WARNING or (event is None and not _ROUTINE.match(text.strip())):
            self._print(text, "red" if record.levelno >= WARNING else "")

    def close(self) -> None:
        """Remove the status from the terminal."""
        self.closed.set()
        if self.live:
            self.live.stop()
        super().close()

    def _on_run_info(self, record: LogRecord) -> None:
        self.total = Counter(record.stats)
        self._print(f"{self.total['total']} jobs to run")
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            shown = {"get_renderable": self._status, "refresh_per_second": 2, "transient": True}
            self.live = Live(console=self.console, **shown)
            self.live.start()
        else:
            threading.Thread(target=self._print_status_lines, daemon=True).start()

    def _on_job_info(self, record: LogRecord) -> None:
        name = step_name(record.rule_name, dict(record.wildcards or {}))
        log = Path(record.log[0]) if record.log else None
        self.jobs[record.jobid] = Job(record.rule_name, name, log, time.time())

    def _on_job_finished(self, record: LogRecord) -> None:
        self.done["total"] += 1
        if job := self.jobs.pop(record.job_id, None):
            self.done[job.rule] += 1
            done, total = self.done[job.rule], self.total[job.rule]
            every = -(-total // _MAX_LINES_PER_STEP) or 1
            if done % every == 0 or done == total:
                self._print(f"{self._count()}  {job.name}: {_duration(time.time() - job.start)}")

    def _on_job_error(self, record: LogRecord) -> None:
        job = self.jobs.pop(record.jobid, None)
        self._print(f"FAILED: {job.name if job else step_name(record.rule_name, {})}", "bold red")
        for path in map(Path, record.log):
            self._print(f"  log: {path}" if path.is_file() else f"  no log was written: {path}")
            # A progress bar counts as one line, in its last state.
            lines = [line.rstrip("\r").rpartition("\r")[2] for line in _end(path).split("\n")]
            for line in [line for line in lines if line.strip()][-_LAST_LOG_LINES:]:
                self._print(f"  | {line}")

    def _on_error(self, record: LogRecord) -> None:
        # The job's failure was printed with its log; only the shell command would be added.
        if "CalledProcessError" not in record.getMessage():
            self._print(record.getMessage(), "red")

    def _print(self, text: str, style: str = "") -> None:
        # Not wrapped, so that paths can be copied.
        self.console.print(text, style=style, markup=False, soft_wrap=True)

    def _count(self) -> str:
        return f"[{self.done['total']}/{self.total['total']}, {self._share_done():.0%}]"

    def _share_done(self) -> float:
        """Expected time of what is done, as a share of the whole run."""
        total = sum(n * expected_s(rule) for rule, n in self.total.items() if rule != "total")
        done = sum(n * expected_s(rule) for rule, n in self.done.items() if rule != "total")
        for job in list(self.jobs.values()):
            images, of, _ = job.progress()
            done += expected_s(job.rule) * images / of
        return done / total if total else 0.0

    def _left(self) -> str:
        """Time left, if what is done took as long as expected relative to the rest."""
        share = self._share_done()
        if share < _SHARE_BEFORE_ESTIMATE:
            return ""
        return f", about {_duration((time.time() - self.start) * (1 - share) / share)} left"

    def _status(self) -> Table:
        table, jobs = Table.grid(padding=(0, 1)), list(self.jobs.values())
        rows = [("all jobs", self._share_done(), 1, self._count() + self._left())]
        for name, done, total, text in rows + [(j.name, *j.progress()) for j in jobs[:_SHOWN_JOBS]]:
            table.add_row(name, ProgressBar(total=total, completed=done, width=20), text)
        if len(jobs) > _SHOWN_JOBS:
            table.add_row(f"and {len(jobs) - _SHOWN_JOBS} more")
        return table

    def _print_status_lines(self) -> None:
        """Without a terminal: a status line after one minute, then at growing intervals."""
        while not self.closed.wait(max(60, (time.time() - self.start) / 10)):
            jobs = list(self.jobs.values())[:_SHOWN_JOBS]
            running = "; ".join(f"{job.name}: {job.progress()[2]}" for job in jobs)
            self._print(f"{self._count()[:-1]}{self._left()}]  running: {running}")


def _end(path: Path, size: int = 10_000) -> str:
    """The last bytes of a file as text; empty if there is no file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors="replace")


def _duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {s} s" if minutes else f"{s} s"
