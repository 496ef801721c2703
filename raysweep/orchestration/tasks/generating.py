"""The job behind ``jobs/generate.py``: samples of a generator, for learning or for labelling."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Literal

from rich.console import Console

from raysweep.config import ConfigError, override
from raysweep.data.render import DOMAINS
from raysweep.experiment import Experiment
from raysweep.orchestration import terminal
from raysweep.orchestration.compute.annotated import Lineage
from raysweep.orchestration.compute.chain import chain_of
from raysweep.orchestration.compute.standing_in import StandIn, Training, announce
from raysweep.orchestration.compute.worker import Progress
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks.samples import Samples
from raysweep.represent.gan_weights import CARD, GENERATOR


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add the job's flags."""
    flags.add_argument(
        "--generator",
        required=True,
        metavar="STAGE_OR_DIR",
        help="pretrain/KEY (a unique beginning is enough), the directory of such a stage, or one "
        "made by jobs/import_weights.py",
    )
    flags.add_argument("--count", required=True, type=int, metavar="N", help="number of images")
    flags.add_argument("--out", required=True, type=Path, metavar="DIR", help="what to make")
    flags.add_argument("--seed", type=int, default=0, help="of latents and noise (default: 0)")
    flags.add_argument("--psi", type=float, default=1.0, help="truncation, 0 to 1 (default: 1)")
    flags.add_argument(
        "--to-label", action="store_true", help="keep the codes, for a person to paint masks"
    )
    flags.add_argument(
        "--stand-in",
        choices=DOMAINS,
        help="with --to-label, of built-in data: a network that was trained on 4000 renderings "
        "labels the samples in place of a person",
    )
    flags.add_argument(
        "--storage",
        default="runs/",
        metavar="PATH_OR_URI",
        help="where stages are (default: %(default)s)",
    )
    flags.add_argument(
        "--dry-run", action="store_true", help="print what would be made; write nothing"
    )


def run_generating(options: argparse.Namespace) -> int:
    """Make the images that are missing; return the exit code.

    Raises:
        ConfigError: the input cannot be used; nothing has been written.
    """
    for flag, value, usable in (
        ("count", options.count, options.count >= 1),
        ("psi", options.psi, 0 <= options.psi <= 1),
    ):
        if not usable:
            allowed = "1 or more images" if flag == "count" else "0 to 1 (1 truncates nothing)"
            raise ConfigError(f"--{flag} {value}: {allowed}")
    if options.stand_in and not options.to_label:
        raise ConfigError("--stand-in: labels samples that are to be labelled; add --to-label")
    storage = Storage(options.storage)
    key, directory = find_generator(storage, options.generator)
    labelled_by: Literal["nobody", "person", "stand-in"] = "nobody"
    if options.to_label:
        labelled_by = "stand-in" if options.stand_in else "person"
    lineage = Lineage(
        generator=key,
        seed=options.seed,
        psi=options.psi,
        count=options.count,
        layout="to_label" if options.to_label else "unlabelled",
        labelled_by=labelled_by,
    )
    samples, console = Samples(lineage, directory, options.out.expanduser()), terminal.console()
    samples.check()
    console.print(
        f"generator pretrain/{key}: {lineage.count} images of {samples.px} px, "
        f"{len(samples.missing())} of them to make"
    )
    if options.dry_run:
        console.print(f"disk: up to {samples.bytes_in_all / 2**20:.0f} MiB")
        return 0
    samples.make(console)
    if options.stand_in:
        _have_labelled(samples, options.stand_in, StageStore(storage), console)
    console.print(f"made: {options.out}", soft_wrap=True)
    return 0


def _have_labelled(samples: Samples, domain: str, store: StageStore, console: Console) -> None:
    """Let the stand-in for a person label the samples."""
    from raysweep.orchestration.on_ray.slots import device_here

    throttle = terminal.Throttle(10.0)

    def report(progress: Progress) -> None:
        if throttle.ready():
            console.print(announce(progress))

    stand_in = StandIn(domain, px=samples.px, store=store, training=Training())
    miou = stand_in.train(device=device_here(), report=report)
    stand_in.write(samples.out, samples.names, samples.pixels())
    console.print(f"labelled by the stand-in for a person, whose own mIoU is {miou:.3f}")


def find_generator(storage: Storage, name: str) -> tuple[str, Path]:
    """Return the key of a generator's pretrain stage, and the directory with its file.

    Args:
        storage: where stages are looked for.
        name: of a stage, or a directory: a stage's, or an imported generator's, whose key is that
            of the stage that it becomes.

    Raises:
        ConfigError: there is no such generator.
    """
    place = Path(name).expanduser()
    if (place / "stage.json").is_file() and (place / GENERATOR).is_file():
        return str(json.loads((place / "stage.json").read_text())["key"]), place
    if (place / CARD).is_file():
        changes = {"pretrain.method": "generator", "pretrain.weights": str(place)}
        return chain_of(override(Experiment(), changes), "").pretrain.key, place
    kind, _, beginning = name.rpartition("/")
    store, found = StageStore(storage), []
    if kind in ("", "pretrain") and beginning:
        found = [key for key in store.finished("pretrain") if key.startswith(beginning)]
    if len(found) != 1:
        what = "fits several stages; give more of the key" if found else "is no finished stage"
        raise ConfigError(
            f"--generator {name!r} {what} in {storage.uri}, and no directory of a "
            "generator; give pretrain/KEY, as jobs/pretrain_stylegan.py prints it, or a directory "
            "made by jobs/import_weights.py"
        )
    directory = store.directory_of("pretrain", found[0])
    if not (directory / GENERATOR).is_file():
        raise ConfigError(f"--generator {name!r}: pretrain/{found[0]} has no generator")
    return found[0], directory
