"""The images of an experiment: one dataset, or several joined."""

from __future__ import annotations

import functools

from raysweep.data.builtin import BuiltinConfig
from raysweep.data.dataset import Dataset, describe, open_dataset
from raysweep.data.joining import joined_info
from raysweep.data.records import DatasetInfo, Split
from raysweep.experiment import DataConfig
from raysweep.orchestration.store.storage import Storage


def described(data: DataConfig) -> DatasetInfo:
    """Return what a dataset is, without rendering a built-in one or decoding images.

    Raises:
        ConfigError: a dataset is not there, cannot be used, or does not go with the others.
    """
    others = {split: describe(place, builtin=data.builtin) for split, place in _others(data)}
    info = describe(data.source, builtin=data.builtin)
    return joined_info(info, others) if others else info


def opened(data: DataConfig, storage_uri: str) -> Dataset:
    """Open a dataset once per process; decoded images stay in memory for the next trial."""
    return _opened(data.source, _others(data), data.builtin, storage_uri)


@functools.lru_cache(maxsize=2)
def _opened(
    source: str, others: tuple[tuple[Split, str], ...], builtin: BuiltinConfig, storage_uri: str
) -> Dataset:
    cache = Storage(storage_uri).local("data")
    return open_dataset(source, cache=cache, builtin=builtin, others=dict(others))


def _others(data: DataConfig) -> tuple[tuple[Split, str], ...]:
    places: dict[Split, str | None] = {
        "unlabelled": data.unlabelled_from,
        "train": data.labels_from,
    }
    return tuple((split, place) for split, place in places.items() if place is not None)
