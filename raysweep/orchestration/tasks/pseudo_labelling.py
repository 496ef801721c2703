"""The job behind ``jobs/pseudo_label.py``: a teacher over many images, shards out."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.fs as pafs
import torch
from rich.console import Console

from raysweep.config import ConfigError, to_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.distill.manifest import MANIFEST_NAME, read_manifest
from raysweep.distill.production import Production
from raysweep.experiment import Experiment
from raysweep.orchestration import terminal
from raysweep.orchestration.cli import experiment_from
from raysweep.orchestration.compute.chain import label_stage
from raysweep.orchestration.compute.datasets import described
from raysweep.orchestration.compute.labelling import INFO, check_source, leave, production_of
from raysweep.orchestration.compute.models import load_fit
from raysweep.orchestration.compute.worker import Progress
from raysweep.orchestration.on_ray.render import materialise_in_parallel
from raysweep.orchestration.store.stages import StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks.prediction import find_teacher


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add the job's own flags."""
    flags.add_argument(
        "--teacher",
        required=True,
        metavar="STAGE_OR_RUN",
        help="fit/KEY, the id of an MLflow run, or best",
    )
    flags.add_argument(
        "--generate",
        type=int,
        metavar="N",
        help="label N images that the teacher's generator makes, in place of --data",
    )
    flags.add_argument(
        "--out", metavar="DIR", help="where the shards go (default: a stage of the storage)"
    )


def run_labelling(options: argparse.Namespace) -> int:
    """Label images, or find them labelled; return the exit code.

    Raises:
        ConfigError: the input cannot be used; nothing has been started.
    """
    experiment = _experiment(options)
    storage = Storage(options.storage)
    teacher = find_teacher(storage, options.teacher)
    store, config = StageStore(storage), experiment.label
    model = load_fit(store, teacher, torch.device("cpu"))
    check_source(config, takes_codes=model.takes_codes)
    info = None
    if config.source == "unlabelled":
        info = described(experiment.data)
    stage = label_stage(config, teacher, "" if info is None else info.fingerprint)
    console = terminal.console()
    if options.dry_run:
        _preview(console, experiment, teacher, info)
        return 0
    storage.check_writable()
    job = _Job(experiment, teacher, model.info, info, store, options)
    log = storage.local("label", f"{stage.key}.txt")
    with terminal.quiet(log) as screen:
        if options.out is None:
            with store.claim(stage) as workspace:
                if workspace is not None:
                    workspace.load_checkpoint()
                    production = job.production(pafs.LocalFileSystem(), str(workspace.path))
                    job.make(production, screen, lambda: workspace.save_checkpoint({}))
                    workspace.commit(leave(production, model.info, workspace))
            place = str(store.directory(stage))
        else:
            place = _absolute(options.out)
            job.make_at(place, screen)
    _summary(console, place)
    return 0


def _experiment(options: argparse.Namespace) -> Experiment:
    changes = {"label.source": "unlabelled"}
    if options.generate is not None:
        if options.data is not None:
            raise ConfigError("--generate and --data: give one of the two")
        if options.generate < 1:
            raise ConfigError(f"--generate {options.generate}: 1 or more images")
        changes = {"label.source": "generated", "label.images": options.generate}
    return experiment_from(options, changes)


class _Job:
    """What is to be labelled, and how."""

    def __init__(
        self,
        experiment: Experiment,
        teacher: str,
        classes: DatasetInfo,
        info: DatasetInfo | None,
        store: StageStore,
        options: argparse.Namespace,
    ) -> None:
        self.experiment, self.teacher, self.classes = experiment, teacher, classes
        self.info, self.store, self.options = info, store, options

    def production(self, files: pafs.FileSystem, root: str) -> Production:
        return production_of(
            self.experiment.label,
            teacher=self.teacher,
            classes=len(self.classes.classes),
            dataset=self.info,
            files=files,
            root=root,
        )

    def make_at(self, place: str, screen: Console) -> None:
        """Make shards in a directory that is no stage."""
        files, root = pafs.FileSystem.from_uri(place)
        production = self.production(files, root.rstrip("/"))
        self.make(production, screen, lambda: None)
        production.finish()
        with files.open_output_stream(f"{root}/{INFO}") as stream:
            stream.write(json.dumps(to_dict(self.classes), indent=1).encode())

    def make(self, production: Production, screen: Console, after: Callable[[], None]) -> None:
        """Label what is missing; say how fast that went and what the teacher waited."""
        if not production.missing():
            return
        import ray

        from raysweep.orchestration.on_ray.labelling import label_on_ray
        from raysweep.orchestration.on_ray.train import as_many_as_fit
        from raysweep.orchestration.on_ray.tune import start_ray

        throttle = terminal.Throttle(10.0)

        def report(progress: Progress) -> None:
            if throttle.ready() or progress.step == progress.steps:
                waits = progress.metrics["teacher waits"]
                screen.print(
                    f"{progress.step} of {progress.steps} images, teacher waits {waits:.0%}",
                    soft_wrap=True,
                )

        began = time.monotonic()
        start_ray(self.options.address)
        try:
            if self.info is not None:
                materialise_in_parallel(self.experiment.data, self.store.storage, screen)
            went = label_on_ray(
                production,
                self.experiment.data,
                teacher=self.teacher,
                storage=self.store.storage,
                workers=as_many_as_fit(self.options.workers),
                report=report,
                after_shard=after,
            )
        finally:
            ray.shutdown()
        rate = went.images / max(time.monotonic() - began, 1e-9)
        steady = f", {went.rate:.1f} once under way" if went.rate else ""
        screen.print(
            f"{went.images} images labelled, {rate:.1f} a second with the start{steady}; the "
            f"teacher waited {went.waiting_share:.1%} of its time for data",
            soft_wrap=True,
        )


def _summary(console: Console, place: str) -> None:
    files, root = pafs.FileSystem.from_uri(place)
    manifest = read_manifest(files, root.rstrip("/"))
    console.print(
        f"{manifest.rows} images in {len(manifest.files)} files, {manifest.bytes / 2**20:.1f} MiB; "
        f"{MANIFEST_NAME} fingerprint {manifest.fingerprint}"
    )
    console.print(f"shards: {place}", soft_wrap=True)


def _preview(
    console: Console, experiment: Experiment, teacher: str, info: DatasetInfo | None
) -> None:
    config = experiment.label
    what = "generated images" if info is None else f"images of {info.name}"
    available = config.images
    if info is not None:
        available = min(available, info.counts["unlabelled"] or info.counts["train"])
    console.print(f"teacher fit/{teacher} labels {available} {what} at {config.px} px")
    size = available * config.px**2 * 3.5 / 2**20  # PNG of photographs, with masks
    console.print(f"disk: up to {size:.0f} MiB")


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).expanduser().resolve())
