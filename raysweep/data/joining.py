"""One dataset of several: unlabelled or labelled training images from elsewhere.

Labels may come from another domain (rendered objects), and unlabelled images from a larger
collection; validation and test images stay the base's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from raysweep.config import ConfigError, digest
from raysweep.data.records import Column, DatasetInfo, Source, Split


def joined(base: Source, others: Mapping[Split, Source]) -> Source:
    """Return a dataset whose images of some splits are others'.

    Args:
        base: where the remaining splits are from.
        others: split, ``unlabelled`` or ``train``, to where its images are from: all images of
            that dataset for ``unlabelled``, its training images for ``train``.

    Raises:
        ConfigError: as for :func:`joined_info`.
    """
    info = joined_info(base.info, {split: source.info for split, source in others.items()})
    parts = {"": base} | {f"{split}/": source for split, source in others.items()}
    records = [record for record in base.records if record.split not in others]
    for split, source in others.items():
        records += [
            replace(record, id=f"{split}/{record.id}", split=split)
            for record in source.records
            if split == "unlabelled" or record.split == split
        ]

    def read(column: Column, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for prefix, source in parts.items():
            own = [name.removeprefix(prefix) for name in ids if _prefix(name, parts) == prefix]
            for name, data in source.read(column, own) if own else ():
                yield prefix + name, data

    return Source(info, tuple(records), read)


def joined_info(base: DatasetInfo, others: Mapping[Split, DatasetInfo]) -> DatasetInfo:
    """Return what is known of the joined dataset.

    Raises:
        ConfigError: a dataset has no such image, or labels of classes other than the base's.
    """
    counts = dict(base.counts)
    for split, info in others.items():
        every = sum(info.counts.values())
        counts[split] = every if split == "unlabelled" else info.counts[split]
        if not counts[split]:
            raise ConfigError(f"{info.name} has no {split} image; give another dataset")
        if split == "train" and info.classes != base.classes:
            raise ConfigError(
                f"labels from {info.name}: its classes are {', '.join(info.classes) or 'none'}, "
                f"those of {base.name} are {', '.join(base.classes)}; name the same ones in the "
                "same order, or merge them when importing"
            )
    licences = dict.fromkeys([base.licence, *(info.licence for info in others.values())])
    prints = {split: info.fingerprint for split, info in others.items()}
    return base.model_copy(
        update={
            "name": "-".join([base.name, *(f"{s}-{info.name}" for s, info in others.items())]),
            "licence": "; ".join(licences),
            "fingerprint": digest([base.fingerprint, prints]),
            "counts": counts,
        }
    )


def _prefix(name: str, parts: Mapping[str, Source]) -> str:
    head = name.partition("/")[0] + "/"
    return head if head in parts else ""
