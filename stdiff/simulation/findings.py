"""Random BI-RADS findings for simulated benign and malignant lesions."""

from __future__ import annotations

import numpy as np

from stdiff.birads.lexicon import PATHOLOGIES, Findings
from stdiff.runtime.files import InputError

# Probabilities, chosen to look like the real collections and to leave the classes overlapping.
# Keys are lexicon terms; a margin may be several, joined by "+".
_BENIGN = {
    "shape": {"oval": 0.80, "round": 0.13, "irregular": 0.07},
    "margin": {"circumscribed": 0.84, "indistinct": 0.09, "microlobulated": 0.07},
    "echo_pattern": {
        "hypoechoic": 0.50,
        "anechoic": 0.18,
        "isoechoic": 0.12,
        "hyperechoic": 0.07,
        "heterogeneous": 0.07,
        "complex cystic and solid": 0.06,
    },
    "posterior_features": {
        "no posterior features": 0.60,
        "enhancement": 0.33,
        "shadowing": 0.04,
        "combined pattern": 0.03,
    },
    "calcifications": {"none": 0.93, "in a mass": 0.05, "outside of a mass": 0.02},
}
_MALIGNANT = {
    "shape": {"irregular": 0.84, "oval": 0.10, "round": 0.06},
    "margin": {
        "spiculated": 0.22,
        "angular": 0.18,
        "indistinct": 0.18,
        "microlobulated": 0.12,
        "indistinct+spiculated": 0.12,
        "indistinct+angular": 0.10,
        "circumscribed": 0.08,
    },
    "echo_pattern": {
        "hypoechoic": 0.70,
        "heterogeneous": 0.18,
        "complex cystic and solid": 0.08,
        "isoechoic": 0.04,
    },
    "posterior_features": {
        "shadowing": 0.55,
        "no posterior features": 0.25,
        "combined pattern": 0.12,
        "enhancement": 0.08,
    },
    "calcifications": {
        "none": 0.62,
        "in a mass": 0.28,
        "outside of a mass": 0.05,
        "intraductal": 0.05,
    },
}
_NOT_PARALLEL = {"benign": 0.08, "malignant": 0.60}


def random_findings(rng: np.random.Generator, pathology: str) -> Findings:
    """Plausible findings: terms by their frequency in the class, and a category that fits them.

    Benign is 2, 3 or 4A, malignant 4B, 4C or 5, higher with more suspicious terms; normal is
    category 1 without other terms. Round masses are not parallel, as in the lexicon.

    Raises:
        InputError: the pathology is not in the lexicon.
    """
    if pathology not in PATHOLOGIES:
        raise InputError(
            f"pathology: {pathology!r} is unknown; expected one of {', '.join(PATHOLOGIES)}"
        )
    if pathology == "normal":
        return Findings(pathology="normal", birads="1")
    table = _BENIGN if pathology == "benign" else _MALIGNANT
    terms = {
        name: str(rng.choice(list(odds), p=list(odds.values()))) for name, odds in table.items()
    }
    margin = tuple(terms.pop("margin").split("+"))
    if terms["echo_pattern"] == "anechoic":  # a simple cyst has no other features
        terms |= {"posterior_features": "enhancement", "calcifications": "none"}
        margin = ("circumscribed",)
        terms["shape"] = "oval" if terms["shape"] == "irregular" else terms["shape"]
    if (terms["echo_pattern"], terms["posterior_features"]) == (
        "complex cystic and solid",
        "shadowing",
    ):  # fluid does not attenuate; only the solid part casts a shadow
        terms["posterior_features"] = "combined pattern"
    not_parallel = terms["shape"] == "round" or rng.random() < _NOT_PARALLEL[pathology]
    suspicious = (
        (terms["shape"] == "irregular")
        + (margin != ("circumscribed",))
        + (not_parallel and terms["shape"] != "round")
        + (terms["posterior_features"] in ("shadowing", "combined pattern"))
        + (terms["calcifications"] != "none")
    )
    if pathology == "malignant":
        birads = "4B" if suspicious <= 2 else "4C" if suspicious == 3 else "5"
    elif suspicious:
        birads = "4A"
    else:
        birads = "2" if terms["echo_pattern"] == "anechoic" or rng.random() < 0.3 else "3"
    return Findings(
        pathology=pathology,
        birads=birads,
        orientation="not parallel" if not_parallel else "parallel",
        margin=margin,
        **terms,
    )


def histology_of(findings: Findings) -> str:
    """The most common histology with such findings; empty for a normal image."""
    if findings.pathology == "normal":
        return ""
    if findings.pathology == "malignant":
        if findings.calcifications == "intraductal":
            return "ductal carcinoma in situ"
        if findings.margin == ("microlobulated",):
            return "mucinous carcinoma"
        return "invasive ductal carcinoma"
    return {
        "anechoic": "cyst",
        "hyperechoic": "lipoma",
        "complex cystic and solid": "intraductal papilloma",
        "heterogeneous": "fibrocystic changes",
    }.get(findings.echo_pattern or "", "fibroadenoma")
