"""The flags that every job shares, and how a job ends.

Exit codes: 0 everything is done; 1 some trials failed; 2 the input cannot be used, said before any
work starts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysweep.config import ConfigError, override, parse_assignments
from raysweep.data.dataset import DatasetInfo
from raysweep.data.render import DOMAINS
from raysweep.evaluate.protocols import FOLDS
from raysweep.experiment import Experiment
from raysweep.orchestration.compute.datasets import described
from raysweep.orchestration.compute.generative import check_images
from raysweep.orchestration.on_ray.elastic import Workers, parse_workers
from raysweep.presets import PRESETS
from raysweep.represent.gan_weights import imported_config
from raysweep.represent.weights import load_trunk

FILES = (
    "data.source",
    "data.unlabelled_from",
    "data.labels_from",
    "pretrain.weights",
    "pretrain.gan.inception",
    "project.weights",
    "trunk.weights",
)
"""Settings that hold a path; workers run in other directories, so it is made absolute."""

PRICES = (
    "{currency: USD, machines: [{name: g5.2xlarge, price: 1.21, cores: 8, gpus: 1, gpu: A10G, "
    "spot: true}]}"
)
"""A price list of one machine, the price made up."""


LABELS = "labels_from"


def parser(description: str, *, sweep: bool = False) -> argparse.ArgumentParser:
    """Return a parser with the shared flags.

    Args:
        description: the job's docstring: what it answers, an example, cost and expected result.
        sweep: add the flags of a sweep.
    """
    flags = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_shared(flags)
    if sweep:
        _add_sweep(flags)
    return flags


def experiment_from(
    options: argparse.Namespace,
    changes: Mapping[str, Any] | None = None,
    *,
    presets: Mapping[str, Callable[[], Experiment]] = PRESETS,
) -> Experiment:
    """Return the preset with a job's own changes, ``--data`` and ``--set`` applied.

    Args:
        options: parsed flags.
        changes: dotted settings that the job changes of the preset.
        presets: those that ``--preset`` chooses from.

    Raises:
        ConfigError: preset, setting or value is not one that exists.
    """
    if options.preset not in presets:
        raise ConfigError(f"--preset {options.preset!r}: allowed are {', '.join(presets)}")
    experiment = presets[options.preset]()
    given = {"data.source": options.data, "data.labels_from": getattr(options, LABELS, None)}
    data = {name: value for name, value in given.items() if value is not None}
    changes = {**(changes or {}), **data, **parse_assignments(experiment, options.assignments)}
    for name in FILES:
        if name in changes:
            changes[name] = _absolute(changes[name])
    return override(experiment, changes)


def checked(experiment: Experiment) -> DatasetInfo:
    """Check an experiment against its dataset and its files; return what the dataset is.

    Raises:
        ConfigError: the data or the weights cannot be read, or there are too few labelled images.
    """
    data, represent = experiment.data, experiment.pretrain
    info = described(data)
    for used in (represent, experiment.trunk):
        if used is not None and used.method == "weights":
            load_trunk(Path(str(used.weights)), used.trunk)
    if represent.method == "generator":
        imported_config(str(represent.weights))
    if represent.trains_generator:
        check_images(represent, info.counts["unlabelled"] or info.counts["train"])
    available = info.counts["train"]
    if data.shots > available and experiment.annotated is None:
        raise ConfigError(
            f"data.shots = {data.shots}: only {available} labelled training images in {info.name}; "
            f"use --set data.shots={max(available, 1)} or label more"
        )
    check_scored(experiment, info)
    return info


def check_scored(experiment: Experiment, info: DatasetInfo) -> None:
    """Check that the protocol finds the labelled images that it needs.

    Raises:
        ConfigError: it does not.
    """
    protocol, counts = experiment.evaluate.protocol, info.counts
    if not info.classes or not counts["test"]:
        raise ConfigError(f"{info.name} has no labelled test image; nothing could be scored")
    if protocol == "held_out" and not counts["val"]:
        raise ConfigError(
            f"evaluate.protocol = 'held_out': {info.name} has no labelled validation image; add "
            "some, or use --set evaluate.protocol=five_folds"
        )
    if protocol == "five_folds" and counts["test"] < FOLDS:
        raise ConfigError(
            f"evaluate.protocol = 'five_folds': needs {FOLDS} or more test images, {info.name} has "
            f"{counts['test']}; add some, or use --set evaluate.protocol=held_out"
        )


def finish(job: Callable[[Sequence[str] | None], int]) -> None:
    """Run a job and exit with its code; bad input ends with one message and code 2."""
    try:
        sys.exit(job(None))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _add_shared(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--preset", default="demo", help=f"{', '.join(PRESETS)} (default: %(default)s)"
    )
    flags.add_argument(
        "--data",
        metavar="PATH",
        help="face or car (built in), a folder with images/ masks/ classes.json, or a Parquet "
        "dataset (default: face)",
    )
    flags.add_argument(
        "--storage",
        default="runs/",
        metavar="PATH_OR_URI",
        help="where results live (default: %(default)s)",
    )
    flags.add_argument(
        "--workers",
        type=parse_workers,
        default=Workers(),
        metavar="N|MIN-MAX",
        help="processes per pretraining, one GPU each if there are any; MIN-MAX: as many as can be "
        "had, fewer when machines go, more when they come (default: %(default)s)",
    )
    flags.add_argument("--address", metavar="ADDR", help="Ray cluster to join, e.g. auto")
    flags.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="KEY=VALUE",
        help="change one setting, e.g. --set data.shots=4 (repeatable)",
    )
    flags.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be done and its cost; start nothing",
    )


def _add_sweep(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--search",
        choices=("grid", "optuna"),
        default="grid",
        help="all combinations, or a search guided by results (default: %(default)s)",
    )
    flags.add_argument(
        "--num-samples",
        type=_positive,
        metavar="N",
        help="configurations that --search optuna tries (default: all)",
    )
    flags.add_argument(
        "--repeats",
        type=_positive,
        metavar="N",
        help="repeats per cell (default: the preset's)",
    )
    flags.add_argument(
        "--gpus",
        type=_positive,
        metavar="N",
        help="trials at a time on one GPU each, also where an autoscaler has still to start the "
        "machines (default: the GPUs that are up, else the cores)",
    )
    flags.add_argument(
        "--gpus-per-trial",
        type=_share,
        default=1.0,
        metavar="SHARE",
        help="of a GPU, e.g. 0.25: small trials share one, four at a time, each held to its share "
        "of the memory (default: %(default)g)",
    )
    flags.add_argument(
        "--labels-from",
        metavar="PATH",
        help="dataset whose training images are the labelled ones, e.g. rendered (default: --data)",
    )
    flags.add_argument(
        "--prices",
        metavar="FILE",
        help="with --dry-run: add what it would cost; FILE (YAML or JSON) says what an hour of a "
        f"type of machine costs, e.g. {PRICES}",
    )


def _absolute(place: str | None) -> str | None:
    if place is None or place in DOMAINS or "://" in place:
        return place
    return str(Path(place).expanduser().resolve())


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 1")
    return value


def _positive(text: str) -> int:
    value = int(text) if text.lstrip("-").isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value
