"""Configuration of synthetic corpora: their size and their quality filter."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stdiff.config.section import InvalidSetting, Section

Tail = Annotated[float, Field(gt=0, lt=0.5)]


class FilterConfig(Section):
    """Quality filter of generated images: for each score, the share of real images it may reject.

    Thresholds are quantiles of the scores of real validation lesions; null = the score is measured
    and rejects nothing.
    """

    mask_dice: Tail | None = Field(
        0.1,
        description="Dice of a segmenter, trained on real images, with the image's mask (a small "
        "share sets the threshold where it misses real lesions entirely, which rejects nothing)",
    )
    terms_met: Tail | None = Field(
        None,
        examples=[0.1],
        description="share of the caption's echo pattern and posterior features that are seen",
    )
    embedding_distance: Tail | None = Field(
        0.01, description="distance to the nearest training image, in a segmenter's features"
    )
    correlation: Tail | None = Field(
        0.01, description="correlation with the nearest training image, pixel by pixel"
    )
    saturated_fraction: Tail | None = Field(0.01, description="share of white pixels")
    contrast_grey: Tail | None = Field(0.01, description="standard deviation of the grey levels")
    seam: Tail | None = Field(0.01, description="visible edge where `model.gate` ends")
    replacement_rounds: int = Field(
        0,
        ge=0,
        le=9,
        description="how often rejected images are replaced by new ones of the same mask and terms",
    )

    @property
    def tails(self) -> dict[str, float | None]:
        """Score → share of real images it may reject."""
        return self.model_dump(exclude={"replacement_rounds"})


class CorpusConfig(Section):
    """One synthetic corpus for each label budget."""

    count: int = Field(gt=0, examples=[500], description="images")
    shard_size: int = Field(250, gt=0, description="images in one shard (one job, one file)")
    shard_minutes: float | None = Field(
        None,
        gt=0,
        examples=[30],
        description="target minutes per shard; together with `images_per_s` it sets `shard_size`. "
        "10 to 60 on a cluster",
    )
    images_per_s: float | None = Field(
        None,
        gt=0,
        examples=[17],
        description="measured by `stdiff corpus speed results/<run>` on your machines",
    )
    backgrounds: Literal["generated", "kept"] = Field(
        "generated",
        description="`kept`: lesions are put into real lesion-free training images, which are "
        "unchanged outside `model.gate`",
    )
    filter: FilterConfig = FilterConfig()

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        given = {"shard_minutes": self.shard_minutes, "images_per_s": self.images_per_s}
        if any(given.values()) != all(given.values()):
            raise InvalidSetting(
                f"shard_minutes {self.shard_minutes} and images_per_s {self.images_per_s}: set "
                "both or none",
                {"shard_minutes": self.shard_minutes or 30}
                | {"images_per_s": self.images_per_s or 17},
                dict.fromkeys(given),
            )
        return self

    @property
    def shards(self) -> int:
        """Number of shards of the corpus."""
        return -(-self.count // self.shard_size)

    def rows_of(self, shard: int) -> int:
        """Number of images of one shard; the last may hold fewer."""
        return min(self.shard_size, self.count - shard * self.shard_size)

    def part_before(self, shard: str, number: int) -> str:
        """The part whose rejected images round ``number`` (from 1) of a shard replaces."""
        return f"{shard}r{number - 1}" if number > 1 else shard

    @property
    def parts(self) -> list[str]:
        """Names of its files: shards, then replacements of their rejected images, by round."""
        shards = [f"{shard:05d}" for shard in range(self.shards)]
        rounds = range(1, self.filter.replacement_rounds + 1)
        return shards + [f"{shard}r{number}" for number in rounds for shard in shards]
