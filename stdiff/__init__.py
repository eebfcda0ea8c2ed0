"""stdiff: mask- and BI-RADS-conditioned latent diffusion for breast ultrasound.

``import stdiff`` is light; each of these names is loaded when it is first used (docs/api.md):
``read_cases``, ``images_of``, ``harmonize``, ``Harmonization``, ``Generator``, ``SamplerConfig``,
``Segmenter``.

Everything it generates is synthetic: for research and teaching, not for diagnosis.
"""

import importlib
import os
from typing import Any

__version__ = "0.1.0"

# Name → module that defines it.
_DEFINED_IN = {
    "read_cases": "stdiff.table.cases",
    "images_of": "stdiff.table.cases",
    "harmonize": "stdiff.datasets.harmonize",
    "Harmonization": "stdiff.datasets.rows",
    "SamplerConfig": "stdiff.config.generator",
    "Generator": "stdiff.diffusion.pipeline",
    "Segmenter": "stdiff.downstream.segmenter",
}
__all__ = ["__version__", *_DEFINED_IN]

# Both are read when the libraries are loaded, so they are set before anything else is imported.
# Nothing is fetched unless a configuration names it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Threads of OpenMP wait for each other by spinning. With another process on the same cores that
# slows training down; after a short spin they sleep (measured by bench/threads.py).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'stdiff' has no attribute {name!r}")
    return getattr(importlib.import_module(_DEFINED_IN[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_DEFINED_IN})
