"""How well the terms told from pixels agree with those a person gave or a simulation was made with.

Balanced accuracy is the mean of the recalls of the terms that occur (Brodersen et al. 2010);
Cohen's kappa is unweighted, for the terms have no order (Cohen 1960). Cases whose term could not
be told are counted apart and enter neither. Where a value is not defined it is null, and `reason`
says why: no agreement is ever made up.
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
from stdiff.datasets.pixels import read_pixels
from stdiff.datasets.raw import RawCase, read_rows
from stdiff.datasets.readers import read_raw
from stdiff.runtime.files import InputError, write_text

DESCRIPTORS = ("shape", "orientation", "echo_pattern", "posterior_features")
_COLUMNS = (*DESCRIPTORS, "calcifications", "margin")
# With fewer cases a figure says nothing.
MIN_CASES = 10
_NOT_TOLD = "not told"

Terms = dict[str, Any]


def evaluate_descriptors(collection: str, raw: Path, out: Path, truth: Path | None = None) -> str:
    """Compare the derived terms of a raw collection with annotated or simulated ones.

    Args:
        collection: a key of :data:`stdiff.datasets.harmonize.READERS`.
        raw: its folder.
        out: JSON file: for each descriptor n, balanced_accuracy, kappa, not_told, reason and
            confusion (given term → derived term → cases); for margins one such entry a term and
            one for circumscribed against the rest; and cases that could not be used, with reasons.
        truth: ``phantom_truth.csv``; its terms then stand for the annotated ones.

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
    """Agreement of (given, derived) terms for each descriptor and each kind of margin.

    Calcifications are compared as in a mass or not, margins one term against the rest.

    Terms map a column to its term (``margin``: several); a column that is absent is unknown.
    """
    results = {}
    for name in DESCRIPTORS:
        both = [(given[name], derived.get(name)) for given, derived in pairs if given.get(name)]
        results[name] = compare(both, VOCABULARY[name])
    # Calcifications are named where they are seen; a mass without the term shows none.
    seen = [
        (_has("in a mass", [given["calcifications"]]), _has("in a mass", [shown]))
        for given, derived in pairs
        if given.get("calcifications")
        for shown in [derived.get("calcifications", "none")]
    ]
    results["calcifications: in a mass or not"] = compare(seen, ("in a mass", "not in a mass"))
    margins = [
        (given["margin"], derived.get("margin")) for given, derived in pairs if given.get("margin")
    ]
    for term in MARGINS:
        # One against the rest: of a lesion's several margins, is this one of them?
        both = [(_has(term, given), _has(term, derived)) for given, derived in margins]
        name = f"margin: {term}" if term != "circumscribed" else "margin: circumscribed or not"
        results[name] = compare(both, (term, f"not {term}"))
    return results


def _has(term: str, margin: Sequence[str] | None) -> str | None:
    if not margin:
        return None
    return term if term in margin else f"not {term}"


def compare(pairs: Sequence[tuple[str, str | None]], vocabulary: Sequence[str]) -> dict[str, Any]:
    """Agreement of (given, derived) terms of one descriptor, the derived one None if not told.

    Returns:
        ``n`` cases told, ``not_told``, ``balanced_accuracy`` (0 to 1), ``kappa`` (-1 to 1), both
        null where undefined with the ``reason`` (else null), and ``confusion``: given → derived →
        cases, with ``not told`` among the derived.
    """
    told = [(given, derived) for given, derived in pairs if derived is not None]
    given, derived = [pair[0] for pair in told], [pair[1] for pair in told]
    result: dict[str, Any] = {
        "n": len(told),
        "not_told": len(pairs) - len(told),
        "balanced_accuracy": None,
        "kappa": None,
        "reason": _undefined(given, len(pairs)),
        "confusion": _confusion(pairs, vocabulary),
    }
    if result["reason"] is None:
        with warnings.catch_warnings():
            # A derived term nobody gave is an error like any other.
            warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
            result["balanced_accuracy"] = float(balanced_accuracy_score(given, derived))
        result["kappa"] = float(cohen_kappa_score(given, derived))
    return result


def _undefined(given: Sequence[str], asked: int) -> str | None:
    """Why there is no agreement to speak of; None where there is."""
    if not asked:
        return "no case has a given term"
    if len(given) < MIN_CASES:
        return f"{len(given)} cases told; at least {MIN_CASES} are needed"
    if len(set(given)) == 1:
        return f"every case told is {given[0]!r}; at least two terms are needed"
    return None


def _confusion(
    pairs: Sequence[tuple[str, str | None]], vocabulary: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Cases by given and derived term, terms that do not occur left out."""
    counts = Counter((given, derived or _NOT_TOLD) for given, derived in pairs)
    occurring = {term for pair in counts for term in pair}
    columns = [term for term in (*vocabulary, _NOT_TOLD) if term in occurring]
    given_terms = {given for given, _ in counts}
    return {
        given: {derived: counts[given, derived] for derived in columns}
        for given in vocabulary
        if given in given_terms
    }


def as_text(results: dict[str, dict[str, Any]]) -> str:
    """A table for the terminal, one line a descriptor."""
    width = max(map(len, results))
    lines = [f"{'descriptor':{width}}      n  not told  balanced accuracy  kappa"]
    for name, result in results.items():
        line = f"{name:{width}}  {result['n']:5d}  {result['not_told']:8d}  "
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
    """The terms a simulated case was made with, by its path below the phantom's folder."""
    rows = {row["path"]: row for row in read_rows(path, ("path", *_COLUMNS), key="path")}
    # The table names paths below the phantom, a case those below its collection.
    base = path.resolve().parent
    keys = {}
    for case in cases:
        image = case.image_path.resolve()
        keys[case.case_id] = image.relative_to(base).as_posix() if base in image.parents else ""
    if cases and not set(keys.values()) & set(rows):
        raise InputError(
            f"{path}: names no image of the collection at {cases[0].root}; expected the "
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
    """The columns that hold a term."""
    return {name: term for name in columns if (term := getattr(findings, name))}
