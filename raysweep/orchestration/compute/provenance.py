"""Whose data and weights a model was made from, and what their terms say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from raysweep.config import from_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.licences import UNKNOWN, citations, non_commercial
from raysweep.orchestration.store.stages import StageStore

NAME = "LICENCES.txt"
EARLIER = ("label", "fit", "trunk", "pretrain")
IMPORTED = ("generator", "weights")


class Origin(NamedTuple):
    """Something that a model was made from.

    Attributes:
        what: a data set or weights, by name.
        licence: its terms, ``unknown`` where nothing records them.
        cite: publications to cite.
    """

    what: str
    licence: str
    cite: tuple[str, ...] = ()


def origins_of(store: StageStore, stage: str, key: str) -> list[Origin]:
    """Return what the model of a stage was made from, each once.

    Args:
        store: where the stage and those before it are.
        stage: name of the stage.
        key: of the stage.
    """
    known: set[str] = set()
    images: dict[str, str] = {}
    found: dict[Origin, None] = {}
    for info, origin, fingerprint in _walk(store, stage, key):
        if info is not None:
            known.add(info.fingerprint)
            origin = Origin(f"data set {info.name}", info.licence, tuple(citations(info.name)))
        if origin is not None:
            found[origin] = None
        if fingerprint is not None:
            images[fingerprint] = f"data set with fingerprint {fingerprint}"
    strangers = [Origin(what, UNKNOWN) for print_, what in images.items() if print_ not in known]
    return [*found, *strangers]


Step = tuple[DatasetInfo | None, Origin | None, str | None]
"""What a stage tells: its data set, another origin, the fingerprint of images that it read."""


def _walk(store: StageStore, stage: str, key: str) -> Iterator[Step]:
    try:
        directory = store.directory_of(stage, key)
    except FileNotFoundError:
        yield None, Origin(f"{stage}/{key}, which is not in this storage", UNKNOWN), None
        return
    record = json.loads((directory / "stage.json").read_text())
    described = directory / "dataset.json"
    if described.exists():
        yield from_dict(DatasetInfo, json.loads(described.read_text())), None, None
    inputs = record["inputs"]
    yield None, None, inputs.get("data")
    if "shards" in inputs:
        what = f"pseudo-labels with fingerprint {inputs['shards']}, made elsewhere"
        yield None, Origin(what, UNKNOWN), None
    if record["config"].get("represent", {}).get("method") in IMPORTED:
        what = f"imported weights of {stage}/{key} (their card.json has the terms)"
        yield None, Origin(what, UNKNOWN), None
    for name in EARLIER:
        if name in inputs:
            earlier = "pretrain" if name == "trunk" else name
            yield from _walk(store, earlier, inputs[name])


def is_non_commercial(origins: Sequence[Origin]) -> bool | None:
    """Return whether any of the terms excludes commercial use, None if that is unknown."""
    found = {non_commercial(origin.licence) for origin in origins}
    if True in found:
        return True
    return None if None in found or not found else False


def note(origins: Sequence[Origin]) -> str:
    """Return the one sentence that a user must not miss."""
    return {
        True: "not for commercial use: terms of what the model was made from exclude it",
        False: "no known terms of what the model was made from exclude commercial use",
        None: "terms of some of what the model was made from are unknown: find out before use",
    }[is_non_commercial(origins)]


def as_text(origins: Sequence[Origin]) -> str:
    """Return the content of the file that lies beside an exported model."""
    lines = [f"{note(origins)}.", "Whether a model inherits the terms of its data is not settled."]
    for origin in origins:
        lines += ["", origin.what, f"    licence  {origin.licence}"]
        lines += [f"    cite     {text}" for text in origin.cite]
    return "\n".join(lines) + "\n"


def tags(origins: Sequence[Origin]) -> dict[str, str]:
    """Return the MLflow tags of a model."""
    use = {True: "yes", False: "no", None: UNKNOWN}[is_non_commercial(origins)]
    terms = "; ".join(f"{origin.what}: {origin.licence}" for origin in origins)
    return {"raysweep.non_commercial": use, "raysweep.licences": terms}
