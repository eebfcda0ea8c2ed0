"""A training that failed leaves a table that says why, so that the benchmark goes on without it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from safetensors.torch import save_file

from stdiff.files import InputError, written_whole
from stdiff.segmentation.arms import HOLE, Arm
from stdiff.training.checkpoints import NotSaved
from stdiff.training.loop import Interrupted


def or_leave_hole(
    training: Callable[[], None], *, segmenter: str, arm: Arm, seed: int, out: Path, weights: Path
) -> None:
    """Run a training; where it fails, write why in place of its table, and empty weights.

    What a second try may mend is no hole and is raised: a full disk, a file that cannot be read,
    a signal to stop.

    Args:
        training: Writes ``out`` and ``weights``.
        segmenter: Its name.
        arm: Its arm.
        seed: Its number among the repetitions.
        out: Table of the training; of a hole it has one row, with the columns ``HOLE``.
        weights: Weights of the training; of a hole a file without any.
    """
    try:
        training()
        return
    except (Interrupted, NotSaved, OSError):
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, InputError):
            traceback.print_exc()
    row = [segmenter, arm.name, str(arm.labels), seed, reason]
    with written_whole(weights) as aside:
        save_file({}, aside)
    with written_whole(out) as aside:
        pd.DataFrame([row], columns=HOLE).to_parquet(aside, index=False)
    print(
        f"stdiff: {segmenter}, {arm}, seed {seed} failed and is left out of the benchmark: "
        f"{reason}\n"
        f"To try it again once that is mended, delete {out} and run the workflow again.",
        file=sys.stderr,
    )
