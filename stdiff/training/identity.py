"""The identity of a training: a checkpoint is resumed only if all of it is unchanged."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from stdiff.config.section import Section
from stdiff.runtime.files import sha256_bytes

# How often checkpoints are written, and how many are kept, changes no weight.
_IRRELEVANT = {"checkpoint_every_images", "keep_latest"}


def identity_of(rows: pd.DataFrame, *sections: Section) -> dict[str, str]:
    """Everything a stage's weights depend on, except the seed and the stage before."""
    identity: dict[str, str] = {"cases": _content_hash(rows)}
    for section in sections:
        values: dict[str, Any] = section.model_dump(mode="json", exclude=_IRRELEVANT)
        identity |= {f"{type(section).__name__}.{k}": json.dumps(v) for k, v in values.items()}
    return identity


def _content_hash(rows: pd.DataFrame) -> str:
    """SHA-256 of ids, captions, images and masks of the training cases."""
    parts = [f"{row.case_id}\0{row.caption}".encode() for row in rows.itertuples()]
    for column in ("image", "mask"):
        parts += [b"" if cell is None else cell["bytes"] for cell in rows[column]]
    return sha256_bytes(b"\0".join(parts))
