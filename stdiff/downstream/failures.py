"""A failed training records the reason in its table, so that the benchmark continues without it."""

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


def record_failure(
    training: Callable[[], None], named: dict[str, Any], *, out: Path, weights: Path
) -> None:
    """Run a training; if it fails, write the reason instead of its table, and empty weights.

    Errors that a second attempt may not have are raised instead: a full disk, a damaged file, a
    stop signal.

    Args:
        training: Writes ``out`` and ``weights``.
        named: Columns that identify the training.
        out: Table of the training; after a failure one row with ``named`` and the ``reason``.
        weights: Weights of the training; after a failure a file without tensors.
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
    save_tensors(weights, {}, {"failure": True})
    write_per_case(pd.DataFrame([named | {"reason": reason}]), out)
    print(
        f"stdiff: {', '.join(f'{key} {value}' for key, value in named.items())} failed and is left "
        f"out of the benchmark: {reason}\n"
        f"To retry after fixing the cause, delete {out} and run the workflow again.",
        file=sys.stderr,
    )
