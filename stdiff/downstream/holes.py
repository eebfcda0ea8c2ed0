"""A training that failed leaves a table that says why, so that the benchmark goes on without it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from stdiff.downstream.per_case import write_per_case
from stdiff.runtime.files import InputError, UnusableFile
from stdiff.runtime.stopping import Interrupted
from stdiff.runtime.tensor_files import save_tensors
from stdiff.training.checkpoints import NotSaved


def or_leave_hole(
    training: Callable[[], None], named: dict[str, Any], *, out: Path, weights: Path
) -> None:
    """Run a training; where it fails, write why in place of its table, and empty weights.

    What a second try may mend is no hole and is raised: a full disk, a damaged file, a signal to
    stop.

    Args:
        training: Writes ``out`` and ``weights``.
        named: What it is called: the columns of its table that tell it from all others.
        out: Table of the training; of a hole it has one row: ``named``, and the ``reason``.
        weights: Weights of the training; of a hole a file without any.
    """
    try:
        training()
        return
    except (Interrupted, NotSaved, OSError, UnusableFile):
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, InputError):
            traceback.print_exc()
    save_tensors(weights, {}, {"hole": True})
    write_per_case(pd.DataFrame([named | {"reason": reason}]), out)
    print(
        f"stdiff: {', '.join(f'{key} {value}' for key, value in named.items())} failed and is left "
        f"out of the benchmark: {reason}\n"
        f"To try it again once that is mended, delete {out} and run the workflow again.",
        file=sys.stderr,
    )
