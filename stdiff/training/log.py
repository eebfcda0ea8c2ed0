"""What a training says while it runs: a status line, JSONL and TensorBoard."""

from __future__ import annotations

import json
import resource
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from stdiff.runtime.files import write_text
from stdiff.training.validation import Look

LOG_EVERY_S = 5.0


class TrainingLog:
    """One status line for people, JSONL and TensorBoard for later."""

    def __init__(
        self, folder: Path, purpose: str, images: int, total: int, writes: bool = True
    ) -> None:
        """``writes``: whether this process is the one of several that does."""
        self.file = folder / "log.jsonl"
        self.writes = writes
        if not writes:
            return
        # Lines written after the checkpoint we go on from will be written again.
        kept = [line for line in _lines(self.file) if json.loads(line)["images"] <= images]
        write_text(self.file, "".join(kept))
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=images)
        self.bar = tqdm(total=total, initial=images, desc=purpose, unit="image", mininterval=1)
        self.since: list[dict[str, float]] = []
        self.last_s, self.last_images = time.monotonic(), images

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self.writes:
            return
        # What stopped the training is what the user must read, not that the log ends early.
        with suppress(OSError) if kind else nullcontext():
            self._flush(self.bar.n)
            self.board.close()
        self.bar.close()

    def write(self, images: int, figures: dict[str, float]) -> None:
        """Figures of the step that ended at ``images``; a line every few seconds has their mean."""
        if not self.writes:
            return
        self.since.append(figures)
        self.bar.update(images - self.bar.n)
        if time.monotonic() - self.last_s > LOG_EVERY_S:
            self._flush(images)

    def show(self, images: int, look: Look) -> None:
        """What was seen of the model, for TensorBoard."""
        for name, value in look.figures.items():
            self.board.add_scalar(f"validation_{name}", value, images)
        if look.grid_HW is not None:
            self.board.add_image("samples", look.grid_HW, images, dataformats="HW")

    def _flush(self, images: int) -> None:
        if not self.since:
            return
        elapsed_s = max(1e-9, time.monotonic() - self.last_s)
        entry: dict[str, Any] = {"images": images}
        for key in self.since[-1]:
            entry[key] = float(np.mean([figures[key] for figures in self.since]))
        entry["images_per_s"] = (images - self.last_images) / elapsed_s
        entry["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with self.file.open("a") as handle:
            handle.write(json.dumps(entry) + "\n")
        for key, value in entry.items():
            self.board.add_scalar(key, value, images)
        self.bar.set_postfix(
            loss=f"{entry['loss']:.4f}", memory_mb=f"{entry['peak_memory_mb']:.0f}", refresh=False
        )
        self.since, self.last_s, self.last_images = [], time.monotonic(), images


def _lines(file: Path) -> list[str]:
    """Whole lines of a file that a crash may have cut short."""
    if not file.exists():
        return []
    return [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
