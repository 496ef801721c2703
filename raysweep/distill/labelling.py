"""Which images a teacher labels, and what is kept of what it says."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from raysweep.config import Config, ConfigError, to_dict
from raysweep.distill.shards import ShardsConfig

READ_FOR_GENERATED = ("psi", "seed")


class LabelConfig(Config):
    """How pseudo-labels are made; by default GanOrCon's 10,000 unlabelled images, hard labels.

    Filtering happens when the shards are written, so what lies on disk is what a student sees and
    every reader of the shards agrees about it.

    Attributes:
        source: ``unlabelled`` images of the dataset (the training images where there are none), or
            images ``generated`` by the representation, which must be a generator.
        images: how many; of a dataset at most, the first in the order of their names.
        psi: truncation of generated images; 1 in ReGAN, 0.7 in the coarse rows of w in DatasetGAN.
        seed: of generated images; image i depends on it and on i only.
        portion: share of the images dropped because the teacher is least certain of them; 0.1 in
            DatasetGAN's text, 0 in its code.
        released: drop them by the order rule of DatasetGAN's released code; see
            :func:`raysweep.fewshot.ensemble.keep_certain`. Read only if ``portion`` is not 0.
        clean_pixels: classes with fewer pixels than this in a mask become background; soft labels
            stay as they are. 0 keeps all.
        soft: classes per pixel whose probabilities are stored as soft labels; 0 stores none.
        px: side in pixels of the stored images and masks.
        shards: layout of the files; the order of a student's batches follows it.
    """

    source: Literal["unlabelled", "generated"] = "unlabelled"
    images: int = Field(default=10_000, ge=1)
    psi: float = Field(default=1.0, ge=0, le=1)
    seed: int = 0
    portion: float = Field(default=0.0, ge=0, lt=1)
    released: bool = False
    clean_pixels: int = Field(default=0, ge=0)
    soft: int = Field(default=0, ge=0, le=256)
    px: int = Field(default=512, ge=1)
    shards: ShardsConfig = ShardsConfig()

    @model_validator(mode="after")
    def _some_are_kept(self) -> LabelConfig:
        if self.portion and int(self.images * self.portion) == 0:
            raise ConfigError(
                f"portion = {self.portion}: drops none of images = {self.images}; set 0 or raise it"
            )
        return self

    def relevant(self) -> dict[str, Any]:
        """Return only the settings that are read: what a stage's key is made of."""
        data = to_dict(self)
        unread: set[str] = set() if self.source == "generated" else set(READ_FOR_GENERATED)
        unread |= set() if self.portion else {"released"}
        return {key: value for key, value in data.items() if key not in unread}


class Unit(NamedTuple):
    """Consecutive images that are read and labelled together, all of one shard.

    What a teacher says may depend in the last bit on what shares its batch, so the units are the
    same wherever and in whatever order they are computed.
    """

    shard: int
    first: int
    images: int


UNIT_IMAGES = 64


def units_of(shard: int, *, images: int, rows_per_file: int) -> list[Unit]:
    """Return the units of a shard of a set of so many images, in order."""
    start, end = shard * rows_per_file, min((shard + 1) * rows_per_file, images)
    return [
        Unit(shard, first, min(UNIT_IMAGES, end - first))
        for first in range(start, end, UNIT_IMAGES)
    ]


def shard_count(*, images: int, rows_per_file: int) -> int:
    """Return the files that so many images need."""
    return -(-images // rows_per_file)


def generated_names(unit: Unit) -> list[str]:
    """Return the ids of the generated images of a unit."""
    return [f"generated-{at:08d}" for at in range(unit.first, unit.first + unit.images)]
