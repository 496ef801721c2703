"""Import data sets from the command line: progress, processes side by side, what was found."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raysweep.config import ConfigError, from_dict
from raysweep.data.dataset import Dataset
from raysweep.data.imports import Outcome, import_published, write_here
from raysweep.data.parquet import read_parquet
from raysweep.data.published.common import ImportConfig
from raysweep.data.published.kinds import PLANNERS
from raysweep.data.published.shards import Shard, Work, write_shard
from raysweep.data.published.workplace import hold
from raysweep.data.records import Split
from raysweep.evaluate.images import Bytes, colourise, mosaic, overlay
from raysweep.licences import notice
from raysweep.orchestration import terminal

SHEET_NAME = "contact-sheet.png"
SHEET_IMAGES = 12
SHEET_PX = 128
LINE_PX = 18
NAMED_PROBLEMS = 10


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add what an import can be told."""
    flags.add_argument("kind", choices=tuple(PLANNERS), metavar="KIND", help=", ".join(PLANNERS))
    flags.add_argument("source", type=Path, metavar="SRC", help="folder, .zip or .tar; lmdb folder")
    flags.add_argument("target", type=Path, metavar="DST", help="directory to make")
    flags.add_argument("--category", help="object, e.g. face, car, cat (datasetgan), horse")
    flags.add_argument("--partition", choices=("official", "lagm"), help="celebamask-hq: splits")
    flags.add_argument("--merge", metavar="NAME", help="label set to merge to, e.g. face8_lagm")
    flags.add_argument("--table", metavar="FILE", help="pascal-part: JSON table of parts, classes")
    flags.add_argument(
        "--take",
        action="append",
        default=[],
        metavar="SPLIT=N",
        help="a seeded draw of N images of a split (repeatable)",
    )
    flags.add_argument("--drop", action="append", default=[], metavar="ID", help="leave an id out")
    flags.add_argument("--seed", type=int, metavar="N", help="of the draws (default: 0)")
    flags.add_argument("--on-error", choices=("stop", "skip"), help="files that are no use")
    flags.add_argument("--verify", choices=("ends", "decode"), help="how images are checked")
    flags.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)"
    )


def config_from(options: argparse.Namespace) -> ImportConfig:
    """Return the settings that flags ask for.

    Raises:
        ConfigError: a value is not allowed.
    """
    take: dict[str, int] = {}
    for item in options.take:
        split, _, count = item.partition("=")
        if not count.isdecimal():
            raise ConfigError(f"--take {item!r}: expected SPLIT=N, e.g. --take unlabelled=10000")
        take[split] = int(count)
    given = {
        "kind": options.kind,
        "category": options.category,
        "partition": options.partition,
        "merge": options.merge,
        "table": options.table,
        "seed": options.seed,
        "on_error": options.on_error,
        "verify": options.verify,
    }
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return from_dict(ImportConfig, values | {"take": take, "drop": options.drop})


def run_import(source: Path, target: Path, config: ImportConfig, *, workers: int) -> Outcome:
    """Import with a progress bar on standard error; files do not depend on ``workers``.

    Raises:
        ConfigError: the source cannot be used.
    """
    if workers < 1:
        raise ConfigError(f"--workers {workers}: 1 or more processes are needed")
    with _screen(quiet=workers > 1) as console:
        told = notice(config.kind)
        if told is not None:
            console.print(f"note: {told}", soft_wrap=True)
        with _progress(console) as bar:
            task = bar.add_task("checking", total=None)

            def report(done: int, total: int) -> None:
                bar.update(task, description="writing", completed=done, total=total)

            return import_published(
                source,
                target,
                config,
                report=report,
                execute=_on_ray(workers) if workers > 1 else write_here,
                finish=draw_sheet,
            )


def summary(outcome: Outcome) -> str:
    """Return what was imported: counts, pixel shares, what was left out or skipped."""
    info = outcome.info
    counts = ", ".join(f"{count} {split}" for split, count in info.counts.items())
    lines = [f"{info.name}: {counts}; fingerprint {info.fingerprint}"]
    if outcome.merged is not None:
        lines.append(f"merge: {outcome.merged}")
    if outcome.shares:
        lines.append("share of labelled pixels:")
        width = max(map(len, outcome.shares))
        for name, share in outcome.shares.items():
            never = "  never occurs" if share == 0 else ""
            lines.append(f"  {name:{width}}  {100 * share:7.3f}%{never}")
    lines += [f"{reason}: {count}" for reason, count in outcome.left_out.items() if count]
    if outcome.skipped:
        lines.append(f"skipped because they cannot be used: {len(outcome.skipped)}")
        lines += [f"  {problem}" for problem in outcome.skipped[:NAMED_PROBLEMS]]
        if len(outcome.skipped) > NAMED_PROBLEMS:
            lines.append(f"  and {len(outcome.skipped) - NAMED_PROBLEMS} more, in import.json")
    return "\n".join(lines)


def draw_sheet(directory: Path, outcome: Outcome) -> None:
    """Draw some images of every split, with their labels and a legend, to look at."""
    dataset = Dataset(read_parquet(str(directory)))
    info = outcome.info
    labelled: list[Split] = [s for s in ("train", "val", "test") if dataset.names(s)]
    splits: list[Split] = labelled or ["unlabelled"]
    tiles: list[Bytes] = []
    per_split = max(1, SHEET_IMAGES // len(splits))
    for split in splits:
        names = dataset.names(split)
        count = min(per_split, len(names))
        chosen = [names[at * len(names) // count] for at in range(count)]
        images = _pixels(dataset, split, chosen)
        tiles += [np.asarray(image) for image in images]
        if labelled:
            masks = dataset.masks(split, px=SHEET_PX, names=chosen).numpy()
            tiles += list(overlay(images, masks, info.palette, alpha=0.6))
            tiles += list(colourise(masks, info.palette))
        blank = np.full_like(tiles[0], 255)
        tiles += [blank] * (-len(tiles) % count)
    columns = min(per_split, max(len(dataset.names(split)) for split in splits))
    page = mosaic(np.stack(tiles), columns=columns)
    _with_legend(page, outcome).save(directory / SHEET_NAME)


def _pixels(dataset: Dataset, split: Split, names: list[str]) -> Bytes:
    images = dataset.images(split, px=SHEET_PX, names=names)
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def _with_legend(page: Image.Image, outcome: Outcome) -> Image.Image:
    info = outcome.info
    columns = max(1, page.width // 160)
    lines = math.ceil(len(info.classes) / columns)
    sheet = Image.new("RGB", (max(page.width, 160), page.height + lines * LINE_PX), "white")
    sheet.paste(page)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for index, (name, colour) in enumerate(zip(info.classes, info.palette, strict=True)):
        left, top = index % columns * 160, page.height + index // columns * LINE_PX
        draw.rectangle((left + 3, top + 3, left + 15, top + 15), fill=colour, outline="grey")
        draw.text((left + 20, top + 2), name, fill="black", font=font)
    return sheet


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


@contextlib.contextmanager
def _screen(*, quiet: bool) -> Iterator[Console]:
    """Yield a console; what Ray prints goes to a file that is thrown away."""
    if not quiet:
        yield Console(stderr=True, highlight=False, markup=False)
        return
    with tempfile.TemporaryDirectory() as folder, terminal.quiet(Path(folder) / "log.txt") as shown:
        yield shown


class _Writer:
    """Writes files in a process of its own."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.held = hold(work.directory)
        self.tree = work.open()

    def __call__(self, shard: Shard) -> int:
        write_shard(self.work, self.tree, shard, progress=lambda _: None)
        return shard.length


def _on_ray(workers: int) -> Callable[[Work, list[Shard], Callable[[int], None]], None]:
    """Return what writes files in ``workers`` processes of this machine, in any order."""

    def execute(work: Work, shards: list[Shard], progress: Callable[[int], None]) -> None:
        if len(shards) < 2:
            write_here(work, shards, progress)
            return
        import ray  # takes seconds to import; one process does without

        from raysweep.orchestration.on_ray.parallel import Step, pipeline
        from raysweep.orchestration.on_ray.tune import start_ray

        joined = ray.is_initialized()
        if not joined:
            start_ray(None)
        try:
            cores = int(ray.cluster_resources().get("CPU", 1))
            if workers > cores:
                raise ConfigError(f"--workers {workers}: this machine has {cores} cores")
            step = Step(_Writer, (work,), size=min(workers, len(shards)), cpus=1)
            for count in pipeline(shards, [step]):
                progress(count)
        finally:
            if not joined:
                ray.shutdown()

    return execute


def main(options: argparse.Namespace) -> int:
    """Import as the flags say; return the exit code."""
    try:
        config = config_from(options)
        outcome = run_import(options.source, options.target, config, workers=options.workers)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(summary(outcome))
    print(f"in {options.target}; look at {options.target / SHEET_NAME}")
    return 0
