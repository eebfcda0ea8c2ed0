"""The configuration's section on lesion masks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stdiff.birads.lexicon import VOCABULARY
from stdiff.birads.query import parse_query
from stdiff.config.section import InvalidSetting, Section
from stdiff.runtime.files import InputError

# Findings columns whose terms can be balanced, and the strength.
MaskTerm = Literal[*VOCABULARY]
Share = Annotated[float, Field(ge=0, le=1)]


class MasksConfig(Section):
    """Where the masks of a corpus come from, and what they are like.

    Priors are fitted to the labelled training masks of each label budget.
    """

    bank: float = Field(1.0, ge=0, description="weight of augmented real training masks")
    curvature: float = Field(
        1.0, ge=0, description="weight of new outlines drawn from the clinical prior"
    )
    ellipse: float = Field(
        0.0, ge=0, description="weight of the published ellipses with elastic deformation"
    )
    where: str = Field(
        "",
        description="what every mask must be like, e.g. "
        '`"pathology=malignant, margin=spiculated|angular, area_fraction=0.02..0.1"`',
    )
    balance: dict[MaskTerm, Share] = Field(
        {},
        description="findings column → strength from 0 (terms as frequent as in training cases) to "
        "1 (all equally frequent), e.g. `{pathology: 1, margin: 0.5}`",
    )
    compared: int = Field(
        0,
        ge=0,
        description="masks of each kind that are compared with real masks held out, for the "
        "report; 0 = none",
    )

    @property
    def weights(self) -> dict[str, float]:
        """Kind → weight."""
        return {"bank": self.bank, "curvature": self.curvature, "ellipse": self.ellipse}

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if not any(self.weights.values()):
            raise InvalidSetting("no kind of mask has a weight above 0", {"curvature": 1})
        try:
            parse_query(self.where)
        except InputError as error:
            raise InvalidSetting(f"where: {error}", {"where": ""}) from None
        return self
