"""The configuration's section on the evaluation of corpora and arms."""

from __future__ import annotations

from pydantic import Field

from stdiff.config.section import Section

# Fewer images give no estimate worth having.
SMALLEST_KID_SUBSET = 10


class EvaluationConfig(Section):
    """Fidelity, control and gain."""

    bootstrap_draws: int = Field(
        10_000, ge=100, description="resamples for each bootstrap interval"
    )
    images: int = Field(
        10_000,
        ge=10,
        description="maximum number of accepted images used for fidelity, control and "
        "memorisation, evenly spread over the corpus",
    )
    kid_subset_size: int = Field(
        100,
        ge=SMALLEST_KID_SUBSET,
        description="images in a KID subset; at most the size of the smaller set",
    )
    kid_subsets: int = Field(100, ge=2, description="number of KID subsets")
