"""Log of a training: a progress bar, a JSONL file and TensorBoard."""

from __future__ import annotations

import json
import math
import resource
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from stdiff.runtime.errors import writing
from stdiff.runtime.files import write_text
from stdiff.training import distributed
from stdiff.training.validation import ValidationResult

LOG_EVERY_S = 5.0


class TrainingLog:
    """Log of a training that starts or resumes at ``images``; only the main process writes."""

    def __init__(self, folder: Path, stream: str, images: int, total: int) -> None:
        self.file = folder / "log.jsonl"
        self.writes = distributed.is_main_process()
        if not self.writes:
            return
        # Lines written after the resumed checkpoint will be written again.
        kept = [line for line in _lines(self.file) if _images_at(line) <= images]
        write_text(self.file, "".join(kept))
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=images)
        self.bar = tqdm(total=total, initial=images, desc=stream, unit="image", mininterval=1)
        self.pending: list[dict[str, float]] = []
        self.last_s, self.last_images = time.monotonic(), images

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self.writes:
            return
        # A full disk must not hide the error that stopped the training.
        with suppress(OSError) if kind else nullcontext():
            self._flush(self.bar.n)
            self.board.close()
        self.bar.close()

    def write(self, images: int, figures: dict[str, float]) -> None:
        """Add the figures of the step that ended at ``images``; their mean is logged every 5 s."""
        if not self.writes:
            return
        self.pending.append(figures)
        self.bar.update(images - self.bar.n)
        if time.monotonic() - self.last_s > LOG_EVERY_S:
            self._flush(images)

    def write_validation(self, images: int, result: ValidationResult) -> None:
        """Write figures and sample grid of a validation to TensorBoard."""
        for name, value in result.figures.items():
            self.board.add_scalar(f"validation_{name}", value, images)
        if result.grid_HW is not None:
            self.board.add_image("samples", result.grid_HW, images, dataformats="HW")

    def _flush(self, images: int) -> None:
        if not self.pending:
            return
        elapsed_s = max(1e-9, time.monotonic() - self.last_s)
        entry: dict[str, Any] = {"images": images}
        for key in self.pending[-1]:
            entry[key] = float(np.mean([figures[key] for figures in self.pending]))
        entry["images_per_s"] = (images - self.last_images) / elapsed_s
        entry["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with writing(self.file), self.file.open("a") as handle:
            handle.write(json.dumps(entry) + "\n")
        for key, value in entry.items():
            self.board.add_scalar(key, value, images)
        self.bar.set_postfix(
            loss=f"{entry['loss']:.4f}", memory_mb=f"{entry['peak_memory_mb']:.0f}", refresh=False
        )
        self.pending, self.last_s, self.last_images = [], time.monotonic(), images


def _lines(file: Path) -> list[str]:
    """Complete lines of a file whose last line may be cut short by a crash."""
    if not file.exists():
        return []
    text = file.read_text(errors="replace")
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _images_at(line: str) -> float:
    """The number of images that a line was written at; of a damaged line, infinity."""
    try:
        return float(json.loads(line)["images"])
    except (ValueError, KeyError, TypeError):
        return math.inf
