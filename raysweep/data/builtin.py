"""The built-in datasets: rendered once, kept as a Parquet dataset, known without rendering.

Images are rendered at the size at which they are used, because shrinking a mask loses thin parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import Field

from raysweep.config import Config, ConfigError, digest, to_dict
from raysweep.data.decoding import encode_png
from raysweep.data.labels import LABEL_SETS, MERGES, LabelSet, Merge, merge
from raysweep.data.merging import merge_name
from raysweep.data.parquet import ROWS_PER_GROUP, ShardWriter, write_info
from raysweep.data.records import SCHEMA_VERSION, SPLITS, DatasetInfo, Record, Split
from raysweep.data.render import DOMAINS, EASY, HARD, render

RENDERER_VERSION = 1  # raise it when the same settings give other pictures
DIFFICULTIES = {"easy": EASY, "hard": HARD}
FINE = {"face": "face17", "car": "car16"}  # the label sets that are rendered
MERGED = {"face": "face12", "car": "car8"}

# First index of each split in the endless sequence: changing one count leaves the other splits
# as they are.
MOST_IMAGES = 1_000_000
FIRST: dict[Split, int] = {
    "test": 0,
    "val": MOST_IMAGES,
    "train": 2 * MOST_IMAGES,
    "unlabelled": 3 * MOST_IMAGES,
}
CHUNK_IMAGES = 256  # one file; about a second of rendering at 64 px


class BuiltinConfig(Config):
    """What to render.

    Attributes:
        px: side of the images in pixels.
        unlabelled: images without labels, for pretraining.
        train: labelled images from which the few shots are drawn.
        val: labelled images that choose the checkpoint.
        test: labelled images that are scored.
        seed: which sequence of scenes.
        difficulty: clutter, occlusion and pose.
        labels: ``fine`` (17 face, 16 car classes), ``merged`` (12, 8), or the name of a label set
            that the fine one merges to, such as ``face8``.
    """

    px: int = Field(64, ge=8, le=1024)
    unlabelled: int = Field(7000, ge=0, le=MOST_IMAGES)
    train: int = Field(50, ge=1, le=MOST_IMAGES)
    val: int = Field(50, ge=1, le=MOST_IMAGES)
    test: int = Field(100, ge=1, le=MOST_IMAGES)
    seed: int = Field(0, ge=0)
    difficulty: Literal["easy", "hard"] = "easy"
    labels: str = "merged"


@dataclass(frozen=True)
class Chunk:
    """Consecutive images of one split, rendered and stored together."""

    domain: str
    config: BuiltinConfig
    split: Split
    start: int
    count: int

    @property
    def file_name(self) -> str:
        """Name of the file that holds the chunk."""
        return f"{self.split}-{self.start:06d}.parquet"


def builtin_info(config: BuiltinConfig, domain: str) -> DatasetInfo:
    """Return what a built-in dataset is, without rendering it.

    Its fingerprint is that of the recipe: settings, label set and version of the renderer.

    Raises:
        ConfigError: the domain or the label set does not exist.
    """
    labels = label_set(config.labels, domain)
    recipe = {
        "renderer": RENDERER_VERSION,
        "schema": SCHEMA_VERSION,
        "domain": domain,
        "config": to_dict(config) | {"labels": labels.name},
        "difficulty": to_dict(DIFFICULTIES[config.difficulty]),
        "table": _rule(domain, labels).table,
        "classes": labels.classes,
        "flip_pairs": labels.flip_pairs,
    }
    return DatasetInfo(
        name=domain,
        classes=labels.classes,
        palette=labels.palette,
        licence="Apache-2.0",
        fingerprint=digest(recipe),
        counts={split: getattr(config, split) for split in SPLITS},
        flip_pairs=labels.flip_pairs,
    )


def label_set(labels: str, domain: str) -> LabelSet:
    """Return the label set that ``BuiltinConfig.labels`` means for a domain.

    Raises:
        ConfigError: the domain or the label set does not exist; lists those that do.
    """
    if domain not in DOMAINS:
        raise ConfigError(f"data.source = {domain!r}: built in are {', '.join(DOMAINS)}")
    fine = FINE[domain]
    merged = [rule.target.name for rule in MERGES.values() if rule.source.name == fine]
    name = {"fine": fine, "merged": MERGED[domain]}.get(labels, labels)
    if name not in (fine, *merged):
        allowed = ", ".join(("fine", "merged", fine, *merged))
        raise ConfigError(f"data.builtin.labels = {labels!r}: allowed for {domain} are {allowed}")
    return LABEL_SETS[name]


def builtin_chunks(config: BuiltinConfig, domain: str) -> list[Chunk]:
    """Return the pieces of a built-in dataset; they can be written in any order, in parallel."""
    return [
        Chunk(domain, config, split, start, min(CHUNK_IMAGES, count - start))
        for split, count in builtin_info(config, domain).counts.items()
        for start in range(0, count, CHUNK_IMAGES)
    ]


def write_chunk(chunk: Chunk, directory: Path) -> None:
    """Render a chunk into one Parquet file, unless a run that was stopped has done so."""
    path = directory / chunk.file_name
    if path.exists():
        return
    with ShardWriter(path) as shard:
        for start in range(chunk.start, chunk.start + chunk.count, ROWS_PER_GROUP):
            stop = min(start + ROWS_PER_GROUP, chunk.start + chunk.count)
            _write_group(chunk, range(start, stop), shard)


@contextmanager
def building(config: BuiltinConfig, domain: str, *, cache: Path) -> Iterator[Path | None]:
    """Claim the right to render a dataset.

    Yields the directory into which to write all chunks, or None if the dataset is complete. Others
    who claim it wait. If the block ends without an error the directory becomes the dataset; after
    an error or a kill the chunks so far stay for the next claim.

    Args:
        config: what to render.
        domain: a key of ``DOMAINS``.
        cache: directory of rendered datasets.

    Raises:
        ConfigError: the domain or the label set does not exist, or a chunk was not written.
    """
    target = builtin_path(config, domain, cache=cache)
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if target.exists():
            yield None
            return
        aside = target.with_name(f"{target.name}.partial")
        aside.mkdir(exist_ok=True)
        yield aside
        _check_complete(config, domain, directory=aside)
        write_info(builtin_info(config, domain), aside)
        aside.rename(target)


def materialise(config: BuiltinConfig, domain: str, *, cache: Path) -> Path:
    """Return the directory of a built-in dataset, rendering what is missing of it.

    Safe to call from many processes at once: one renders, the others wait.
    """
    with building(config, domain, cache=cache) as directory:
        if directory is not None:
            for chunk in builtin_chunks(config, domain):
                write_chunk(chunk, directory)
    return builtin_path(config, domain, cache=cache)


def builtin_path(config: BuiltinConfig, domain: str, *, cache: Path) -> Path:
    """Return where a built-in dataset lies once it is rendered."""
    return cache / f"{domain}-{builtin_info(config, domain).fingerprint}"


def _write_group(chunk: Chunk, indices: Sequence[int], shard: ShardWriter) -> None:
    config = chunk.config
    images, masks = render(
        chunk.domain,
        [FIRST[chunk.split] + index for index in indices],
        px=config.px,
        seed=config.seed,
        difficulty=DIFFICULTIES[config.difficulty],
    )
    names = [f"{chunk.split}-{index:06d}" for index in indices]
    encoded = [encode_png(image) for image in images]
    if chunk.split == "unlabelled":
        records = [Record(name, chunk.split) for name in names]
        shard.write(records, images=encoded, masks=[None] * len(names))
        return
    ranks = indices if chunk.split == "train" else [None] * len(names)
    records = [Record(name, chunk.split, rank) for name, rank in zip(names, ranks, strict=True)]
    merged = merge(masks, _rule(chunk.domain, label_set(config.labels, chunk.domain)))
    shard.write(records, images=encoded, masks=[encode_png(mask) for mask in merged])


def _rule(domain: str, target: LabelSet) -> Merge:
    """Return the merge from the classes that are rendered; to themselves, nothing changes."""
    fine = LABEL_SETS[FINE[domain]]
    if target == fine:
        return Merge(fine.name, fine, fine, tuple(range(len(fine.classes))))
    return MERGES[merge_name(fine, target)]


def _check_complete(config: BuiltinConfig, domain: str, *, directory: Path) -> None:
    for chunk in builtin_chunks(config, domain):
        if not (directory / chunk.file_name).exists():
            raise ConfigError(
                f"{directory} lacks {chunk.file_name}; all workers must write to the same "
                "directory, so give a storage that they share"
            )
