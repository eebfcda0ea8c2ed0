"""Which real cases are behind a corpus, as far as it and the model beside it say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from stdiff.diffusion.about import ABOUT, read_about
from stdiff.runtime.files import sha256_folder

_BANK = "bank:"
_LISTED = 3


def model_cases(shards: Sequence[Path], models: Collection[str]) -> set[str] | None:
    """Case ids that the models of a corpus name; None if one is not in a folder beside it.

    Args:
        shards: ``labels<budget>/corpus/*.parquet``; the model is then ``labels<budget>/model``.
        models: SHA-256 of the model folders.
    """
    found: dict[str, set[str]] = {}
    for beside in sorted({Path(shard).resolve().parent.parent for shard in shards}):
        for file in sorted(beside.glob(f"*/{ABOUT}")):
            about = read_about(file.parent)
            ids = (about[key] for key in about if key.endswith("_cases"))
            found[sha256_folder(file.parent)] = {case_id for known in ids for case_id in known}
    if not set(models) <= set(found):
        return None
    return {case_id for sha256 in models for case_id in found[sha256]}


def mask_case(origin: str | None) -> str | None:
    """The real case whose mask was changed, e.g. of ``bank:busi/benign-0001;flip=1``."""
    if not origin or not origin.startswith(_BANK):
        return None
    return origin.removeprefix(_BANK).partition(";")[0]


def mismatch(known: Iterable[str], tables: Collection[str]) -> str | None:
    """What to say of cases behind a corpus that are not in the tables; None if all are."""
    missing = sorted(set(known) - set(tables))
    if not missing:
        return None
    return (
        f"**These are not the tables that the corpus was made from**: {len(missing)} of the real "
        f"cases behind it, e.g. {', '.join(missing[:_LISTED])}, are not in them, so licences may "
        "be missing below. Make this card again with all case tables of the run as `--cases`."
    )
