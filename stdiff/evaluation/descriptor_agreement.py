"""Agreement of terms derived from pixels with annotated or simulated terms.

Balanced accuracy is the mean of the recalls of the terms that occur (Brodersen et al. 2010);
Cohen's kappa is unweighted, for the terms have no order (Cohen 1960). Cases without a derived term
are counted separately and enter neither. Undefined values are null, and `reason` says why.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score
from tqdm import tqdm

from stdiff.birads.descriptors import derived_terms
from stdiff.birads.lexicon import MARGINS, VOCABULARY, Findings
from stdiff.datasets.csv_tables import read_rows
from stdiff.datasets.pixels import read_pixels
from stdiff.datasets.raw import RawCase
from stdiff.datasets.readers import read_raw
from stdiff.runtime.files import InputError, write_text

DESCRIPTORS = ("shape", "orientation", "echo_pattern", "posterior_features")
_COLUMNS = (*DESCRIPTORS, "calcifications", "margin")
# Minimum number of cases for a value.
MIN_CASES = 10
_NOT_DERIVED = "not derived"

Terms = dict[str, Any]


def evaluate_descriptors(collection: str, raw: Path, out: Path, truth: Path | None = None) -> str:
    """Compare the derived terms of a raw collection with annotated or simulated ones.

    Args:
        collection: a key of :data:`stdiff.datasets.harmonize.READERS`.
        raw: its folder.
        out: JSON file: for each descriptor n, balanced_accuracy, kappa, not_derived, reason and
            confusion (given term → derived term → cases), with one entry for each margin; and
            cases that could not be used, with reasons.
        truth: ``phantom_truth.csv``, whose terms replace the annotated ones.

    Returns:
        The same as a table of text, without the confusion.

    Raises:
        InputError: a collection that cannot be read, a truth table that does not belong to it, or
            no case with both a mask and a given term.
    """
    cases, _ = read_raw(collection, raw)
    given_of = _annotated if truth is None else _truth_of(Path(truth), cases)
    pairs: list[tuple[Terms, Terms]] = []
    unusable: dict[str, str] = {}
    for case in tqdm(cases, desc=f"describe {collection}", unit="image", disable=None):
        given = given_of(case)
        if not given or not case.mask_paths:
            continue
        try:
            pixels = read_pixels(case)
        except InputError as error:
            unusable[case.case_id] = str(error).replace(f"{case.root}/", "")
            continue
        pairs.append((given, dict(derived_terms(pixels.picture.grey_HW, pixels.mask_HW))))
    if not pairs:
        raise InputError(
            f"{raw}: no case of {collection} has both a mask and a term for any of "
            f"{', '.join(_COLUMNS)}; give a collection with annotated terms "
            "(breast, bus_cot), or --truth with the phantom_truth.csv of a simulated one"
        )
    results = agreement(pairs)
    report = {
        "collection": collection,
        "given": "annotated" if truth is None else "simulated",
        "cases": len(pairs),
        "kappa": "unweighted",
        "descriptors": results,
        "unusable": unusable,
    }
    write_text(Path(out), json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return as_text(results)


def agreement(pairs: Sequence[tuple[Terms, Terms]]) -> dict[str, dict[str, Any]]:
    """Agreement of (given, derived) terms for each descriptor and each margin.

    Calcifications are compared as in a mass or not, margins as one term against the rest. Terms map
    a column to its term (``margin``: several); absent columns are unknown.
    """
    results = {}
    for name in DESCRIPTORS:
        both = [(given[name], derived.get(name)) for given, derived in pairs if given.get(name)]
        results[name] = compare(both, VOCABULARY[name])
    # Without a derived term, a mass shows no calcifications.
    both = [
        (_has("in a mass", [term]), _has("in a mass", [derived.get("calcifications", "none")]))
        for given, derived in pairs
        if (term := given.get("calcifications"))
    ]
    results["calcifications: in a mass or not"] = compare(both, ("in a mass", "not in a mass"))
    for term in MARGINS:
        both = [
            (_has(term, given["margin"]), _has(term, derived.get("margin")))
            for given, derived in pairs
            if given.get("margin")
        ]
        name = f"margin: {term}" if term != "circumscribed" else "margin: circumscribed or not"
        results[name] = compare(both, (term, f"not {term}"))
    return results


def _has(term: str, terms: Sequence[str] | None) -> str | None:
    """``term`` or ``not term``; None if no terms are known."""
    if not terms:
        return None
    return term if term in terms else f"not {term}"


def compare(pairs: Sequence[tuple[str, str | None]], vocabulary: Sequence[str]) -> dict[str, Any]:
    """Agreement of (given, derived) terms of one descriptor; None if no term could be derived.

    Returns:
        Numbers of cases ``n`` with and ``not_derived`` without a derived term;
        ``balanced_accuracy`` (0 to 1) and ``kappa`` (-1 to 1), both null where undefined; the
        ``reason`` for that, else null; ``confusion``: given → derived (or ``not derived``) → cases.
    """
    known = [(given, derived) for given, derived in pairs if derived is not None]
    given, derived = [pair[0] for pair in known], [pair[1] for pair in known]
    result: dict[str, Any] = {
        "n": len(known),
        "not_derived": len(pairs) - len(known),
        "balanced_accuracy": None,
        "kappa": None,
        "reason": _undefined(given, len(pairs)),
        "confusion": _confusion(pairs, vocabulary),
    }
    if result["reason"] is None:
        with warnings.catch_warnings():
            # A derived term that is never given counts as an error.
            warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
            result["balanced_accuracy"] = float(balanced_accuracy_score(given, derived))
        result["kappa"] = float(cohen_kappa_score(given, derived))
    return result


def _undefined(given: Sequence[str], cases: int) -> str | None:
    """Why the agreement is undefined; None if it is defined."""
    if not cases:
        return "no case has a given term"
    if len(given) < MIN_CASES:
        return f"{len(given)} cases with a derived term; at least {MIN_CASES} are needed"
    if len(set(given)) == 1:
        return f"every case with a derived term is {given[0]!r}; at least two terms are needed"
    return None


def _confusion(
    pairs: Sequence[tuple[str, str | None]], vocabulary: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Number of cases by given and derived term, without terms that do not occur."""
    counts = Counter((given, derived or _NOT_DERIVED) for given, derived in pairs)
    occurring = {term for pair in counts for term in pair}
    columns = [term for term in (*vocabulary, _NOT_DERIVED) if term in occurring]
    given_terms = {given for given, _ in counts}
    return {
        given: {derived: counts[given, derived] for derived in columns}
        for given in vocabulary
        if given in given_terms
    }


def as_text(results: dict[str, dict[str, Any]]) -> str:
    """A table for the terminal, with a line for each descriptor."""
    width = max(map(len, results))
    lines = [f"{'descriptor':{width}}      n  not derived  balanced accuracy  kappa"]
    for name, result in results.items():
        line = f"{name:{width}}  {result['n']:5d}  {result['not_derived']:11d}  "
        if result["reason"] is None:
            line += f"{result['balanced_accuracy']:17.3f}  {result['kappa']:5.2f}"
        else:
            line += result["reason"]
        lines.append(line)
    return "\n".join(lines)


# ---- the terms given


def _annotated(case: RawCase) -> Terms:
    """The terms that a person annotated."""
    return _known(case.findings, [name for name in case.annotated if name in _COLUMNS])


def _truth_of(path: Path, cases: Sequence[RawCase]) -> Callable[[RawCase], Terms]:
    """A function that gives the terms a case was simulated with."""
    rows = {row["path"]: row for row in read_rows(path, ("path", *_COLUMNS), key="path")}
    # Paths in the table start at the folder of the phantom, those of a case at its collection.
    base = path.resolve().parent
    keys = {}
    for case in cases:
        image = case.image_path.resolve()
        keys[case.case_id] = image.relative_to(base).as_posix() if base in image.parents else ""
    if cases and not set(keys.values()) & set(rows):
        raise InputError(
            f"{path}: names no image of the collection at {cases[0].root}; give the "
            "phantom_truth.csv that `stdiff phantom` wrote beside it"
        )

    def given(case: RawCase) -> Terms:
        row = rows.get(keys[case.case_id])
        if row is None:
            return {}
        terms = {name: row[name] or None for name in _COLUMNS if name != "margin"}
        margin = tuple(filter(None, row["margin"].split("&")))
        return _known(Findings(margin=margin, **terms), _COLUMNS)

    return given


def _known(findings: Findings, columns: Sequence[str]) -> Terms:
    """Column → term, unknown ones left out."""
    return {name: term for name in columns if (term := getattr(findings, name))}
