"""Which case ids every step can store, print and name files by."""

from __future__ import annotations

import re
import unicodedata


def case_id_problem(case_id: str) -> str | None:
    """Why a case id cannot be used; None if it can."""
    if not case_id.strip():
        return "case_id is empty"
    kinds = set(map(unicodedata.category, case_id))
    if "Cs" in kinds:
        return "the name is not UTF-8, as unpacked from another system's archive; rename the file"
    if "Cc" in kinds:
        return "case_id holds a line break or another control character; rename the case"
    parts = re.split(r"[/\\]", case_id)
    if not parts[0] or re.fullmatch("[A-Za-z]:", parts[0]):
        return "case_id is an absolute path; expected e.g. busi/benign-0001"
    if ".." in parts:
        return "case_id leads out of its folder (..); expected e.g. busi/benign-0001"
    return None
