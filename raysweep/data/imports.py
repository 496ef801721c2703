"""Turn folders, archives and published data sets into Parquet datasets.

Files are made in a hidden directory beside the target, which becomes the target when all is done.
After a kill, the same import goes on there with the files that are missing; what it writes does
not depend on where it was interrupted, nor on the number of processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raysweep.config import ConfigError, to_dict
from raysweep.data.parquet import ROWS_PER_GROUP, write_info
from raysweep.data.published.archives import Tree
from raysweep.data.published.common import ImportConfig, Item, Plan, Problem, drawn, refusal
from raysweep.data.published.kinds import PLANNERS, open_source
from raysweep.data.published.label_sets import MERGE_SOURCES, find_merge
from raysweep.data.published.shards import (
    Entry,
    Shard,
    Work,
    read_entry,
    write_shard,
)
from raysweep.data.published.workplace import adopt, await_writers, tidy, workplace
from raysweep.data.records import SPLITS, DatasetInfo, Split, fingerprint
from raysweep.licences import TERMS

ROWS_PER_FILE = 8 * ROWS_PER_GROUP
THREADS = min(4, os.cpu_count() or 1)
REPORT_NAME = "import.json"

Report = Callable[[int, int], None]  # images done, images in total
Execute = Callable[[Work, list[Shard], Callable[[int], None]], None]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an import made.

    Attributes:
        info: of the dataset.
        shares: part of all labelled pixels that each class has; 0 for one that never occurs.
        skipped: what could not be used.
        left_out: images that the published recipe leaves out, by reason.
        merged: where the merge is from; None if nothing was merged.
    """

    info: DatasetInfo
    shares: dict[str, float]
    skipped: tuple[Problem, ...]
    left_out: dict[str, int]
    merged: str | None


def write_here(work: Work, shards: list[Shard], progress: Callable[[int], None]) -> None:
    """Write files one after the other in this process, with a few threads."""
    tree = work.open()
    try:
        for shard in shards:
            write_shard(work, tree, shard, progress=progress, threads=THREADS)
    finally:
        tree.close()


def import_published(
    source: Path,
    target: Path,
    config: ImportConfig,
    *,
    report: Report,
    execute: Execute = write_here,
    finish: Callable[[Path, Outcome], None] | None = None,
) -> Outcome:
    """Import a data set, or go on with an import that was killed.

    Args:
        source: folder, archive or database.
        target: directory to make.
        config: what lies in the source and how to import it.
        report: called as the import goes on.
        execute: writes files and calls back with the number of images after each few.
        finish: may add to the directory before it becomes the target.

    Raises:
        ConfigError: the source cannot be used, or the target is there and not empty.
    """
    if config.kind not in PLANNERS:
        raise ConfigError(f"kind = {config.kind!r}: allowed are {', '.join(PLANNERS)}")
    with workplace(target) as directory:
        work = _planned(source, directory, config)
        _write_missing(work, execute, report)
        outcome = _finished(work)
        if finish is not None:
            finish(directory, outcome)
        tidy(directory)
    return outcome


def _write_missing(work: Work, execute: Execute, report: Report) -> None:
    missing = [shard for shard in work.shards if read_entry(work.directory, shard) is None]
    total = sum(shard.length for shard in work.shards)
    done = total - sum(shard.length for shard in missing)
    report(done, total)

    def progress(count: int) -> None:
        nonlocal done
        done += count
        report(done, total)

    execute(work, missing, progress)


def _planned(source: Path, directory: Path, config: ImportConfig) -> Work:
    """Look at the source; empty the directory if it holds parts of another import."""
    tree = open_source(source, config, scratch=directory)
    try:
        plan = PLANNERS[config.kind](tree, config)
        plan = dataclasses.replace(plan, items=drawn(plan.items, config))
        if plan.problems and config.on_error == "stop":
            raise ConfigError(refusal(plan.problems))
        rule = None
        if config.merge is not None:
            if plan.labels is None:
                raise ConfigError(f"merge = {config.merge!r}: {plan.name} has no labels")
            rule = find_merge(plan.labels, config.merge)
        origin = _origin(tree, plan, config)
    finally:
        tree.close()
    await_writers(directory)
    adopt(directory, origin)
    items: dict[Split, tuple[Item, ...]] = {
        split: tuple(
            sorted((i for i in plan.items if i.record.split == split), key=lambda i: i.record.id)
        )
        for split in SPLITS
    }
    bare = dataclasses.replace(plan, items=())
    return Work(source, directory, config, bare, items, rule, (ROWS_PER_GROUP, ROWS_PER_FILE))


def _origin(tree: Tree, plan: Plan, config: ImportConfig) -> str:
    """Return a hash of all that the files will depend on."""
    found = hashlib.blake2b(digest_size=16)
    settings: dict[str, Any] = to_dict(config) | {"on_error": None}
    rows = (ROWS_PER_GROUP, ROWS_PER_FILE)
    classes = plan.labels.classes if plan.labels else ()
    table = Path(config.table).read_text(encoding="utf-8") if config.table else ""
    found.update(repr((json.dumps(settings, sort_keys=True), rows, classes, table)).encode())
    for name in tree.names:
        found.update(f"{name}\0{tree.stamp(name)}\n".encode())
    for item in plan.items:
        found.update(f"{item.record}\0{item.files}\n".encode())
    return found.hexdigest()


def _finished(work: Work) -> Outcome:
    """Write ``dataset.json`` and the report from what the files say of themselves."""
    entries = {shard: _entry(work.directory, shard) for shard in work.shards}
    listed = [*work.plan.problems]
    listed += [Problem(*pair) for entry in entries.values() for pair in entry.problems]
    if listed and work.config.on_error == "stop":
        raise ConfigError(refusal(listed))
    hashes = [found for entry in entries.values() for found in entry.hashes]
    if not hashes:
        raise ConfigError(f"{work.source}: no image of it can be used\n{refusal(listed)}")
    info = _info(work, entries, hashes)
    if work.plan.fingerprint not in (None, info.fingerprint):
        raise ConfigError(f"the files of {info.name} changed while they were read; import again")
    pixels = [sum(column) for column in zip(*(e.pixels for e in entries.values()), strict=True)]
    whole = max(sum(pixels), 1)
    shares = {name: count / whole for name, count in zip(info.classes, pixels, strict=True)}
    merged = MERGE_SOURCES.get(work.rule.name, "") if work.rule else None
    outcome = Outcome(info, shares, tuple(listed), work.plan.left_out, merged)
    write_info(info, work.directory)
    _write_report(work, outcome)
    return outcome


def _info(work: Work, entries: dict[Shard, Entry], hashes: list[str]) -> DatasetInfo:
    labels = work.labels
    classes = labels.classes if labels else ()
    pairs = labels.flip_pairs if labels else ()
    counts = dict.fromkeys(SPLITS, 0)
    for shard, entry in entries.items():
        counts[shard.split] += len(entry.hashes)
    terms = TERMS.get(work.plan.licence)
    return DatasetInfo(
        name=f"{work.plan.name}-{work.rule.target.name}" if work.rule else work.plan.name,
        classes=classes,
        palette=labels.palette if labels else (),
        licence=terms.licence if terms else work.plan.licence,
        fingerprint=fingerprint(hashes, classes=classes, flip_pairs=pairs),
        counts=counts,
        flip_pairs=pairs,
    )


def _entry(directory: Path, shard: Shard) -> Entry:
    entry = read_entry(directory, shard)
    if entry is None:
        raise ConfigError(f"{directory}: {shard.name} vanished while the import ran; import again")
    return entry


def _write_report(work: Work, outcome: Outcome) -> None:
    content = {
        "settings": to_dict(work.config),
        "merge": work.rule.name if work.rule else None,
        "merge_source": outcome.merged,
        "pixel_shares": outcome.shares,
        "left_out": outcome.left_out,
        "skipped": [_relative(problem, work.source) for problem in outcome.skipped],
    }
    (work.directory / REPORT_NAME).write_text(json.dumps(content, indent=1) + "\n")


def _relative(problem: Problem, source: Path) -> str:
    """Name a problem without the folder of the source, which differs between machines."""
    return str(problem).replace(f"{source}/", "")
