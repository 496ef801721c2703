"""The job behind ``jobs/distill.py``: shards in, a scored student out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from raysweep.config import ConfigError
from raysweep.data.dataset import DatasetInfo
from raysweep.distill.rows import ShardError
from raysweep.distill.student_config import total_steps
from raysweep.experiment import Experiment
from raysweep.orchestration import terminal
from raysweep.orchestration.cli import check_scored, checked, experiment_from
from raysweep.orchestration.compute.chain import distill_stage, evaluate_stage
from raysweep.orchestration.compute.datasets import described, opened
from raysweep.orchestration.compute.distilling import (
    Shards,
    check_classes,
    learn_student,
    open_shards,
)
from raysweep.orchestration.compute.models import load_student
from raysweep.orchestration.compute.pipeline import score
from raysweep.orchestration.compute.worker import Progress, Report, Run
from raysweep.orchestration.on_ray.elastic import (
    Workers,
    preview_counts,
    student_counts,
    word_history,
)
from raysweep.orchestration.on_ray.render import materialise_in_parallel
from raysweep.orchestration.on_ray.slots import device_here
from raysweep.orchestration.on_ray.tune import start_ray
from raysweep.orchestration.store.stages import Stage, StageStore
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tracking.client import ui_command
from raysweep.orchestration.tracking.live_run import DistillRun


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add the job's own flags."""
    flags.add_argument(
        "--shards",
        required=True,
        metavar="DIR",
        help="directory or URI of jobs/pseudo_label.py, or label/KEY",
    )
    flags.add_argument(
        "--max-bad-rows",
        type=int,
        default=0,
        metavar="N",
        help="rows that may be skipped because they do not decode (default: %(default)s)",
    )


def run_distillation(options: argparse.Namespace) -> int:
    """Train and score a student, or find it done; return the exit code.

    Raises:
        ConfigError: the input cannot be used; nothing has been started.
    """
    experiment = experiment_from(options)
    storage = Storage(options.storage)
    shards, origin = _shards(storage, options)
    info = _checked(experiment, shards, options.workers)
    store = StageStore(storage)
    inputs = {**origin, "data": info.fingerprint}
    student = distill_stage(experiment.student, inputs, data=experiment.data)
    scores = evaluate_stage(experiment.evaluate, {"distill": student.key, "data": info.fingerprint})
    job = _Job(experiment, shards, student, scores, store, options)
    console = terminal.console()
    if options.dry_run:
        job.preview(console)
        return 0
    storage.check_writable()
    problem = None
    if store.done(scores):
        console.print("already trained and scored")
    else:
        with terminal.quiet(storage.local("distill", f"{student.key}.txt")) as screen:
            problem = job.run(screen, info)
    _summary(console, store, student, scores)
    console.print(f"MLflow:  {ui_command(storage)}", soft_wrap=True)
    if problem is not None:
        console.print(f"MLflow could not be reached: {problem}", soft_wrap=True)
    return 0


def _shards(storage: Storage, options: argparse.Namespace) -> tuple[Shards, dict[str, str]]:
    """Open the shards; return with them how a stage names them as its input."""
    if options.max_bad_rows < 0:
        raise ConfigError(f"--max-bad-rows {options.max_bad_rows}: 0 or more")
    place: Path | str = options.shards
    kind, _, key = options.shards.rpartition("/")
    if kind == "label" and storage.exists("stages", "label", key, "DONE"):
        place = storage.local("stages", "label", key)
        storage.download("stages", "label", key)
    try:
        shards = open_shards(place, max_bad_rows=options.max_bad_rows)
    except ShardError as error:
        raise ConfigError(f"--shards {options.shards!r}: {error}") from None
    record = Path(shards.root) / "stage.json"
    if record.exists():
        return shards, {"label": json.loads(record.read_text())["key"]}
    return shards, {"shards": shards.manifest.fingerprint}


def _checked(experiment: Experiment, shards: Shards, workers: Workers) -> DatasetInfo:
    config = experiment.student
    if config.plateau_patience is not None:
        info = checked(experiment)
    else:
        info = described(experiment.data)
        check_scored(experiment, info)
    check_classes(shards.manifest, info)
    total_steps(config, rows=shards.manifest.rows)
    student_counts(config, workers)
    return info


class _Job:
    """One student, from shards to scores."""

    def __init__(
        self,
        experiment: Experiment,
        shards: Shards,
        student: Stage,
        scores: Stage,
        store: StageStore,
        options: argparse.Namespace,
    ) -> None:
        self.experiment, self.shards, self.store = experiment, shards, store
        self.student, self.scores, self.options = student, scores, options

    def preview(self, console: Console) -> None:
        """Print what would be done."""
        config, manifest = self.experiment.student, self.shards.manifest
        steps = total_steps(config, rows=manifest.rows)
        for stage in (self.student, self.scores):
            done, started = self.store.done(stage), self.store.started(stage)
            console.print(f"{stage}: {'done' if done else 'to resume' if started else 'to run'}")
        console.print(
            f"{config.network} at {config.resolution} px, {steps} steps of {config.batch} images, "
            f"{manifest.rows} in {len(manifest.files)} files"
        )
        if self.options.workers.several:
            console.print(preview_counts(student_counts(config, self.options.workers)))

    def run(self, screen: Console, info: DatasetInfo) -> str | None:
        """Train and score; return what went wrong with MLflow, if anything did."""
        experiment = self.experiment
        tracked = DistillRun(
            self.store,
            self.student,
            experiment,
            info=info,
            preset=self.options.preset,
            evaluation=self.scores,
        )
        throttle = terminal.Throttle(10.0)

        def report(progress: Progress) -> None:
            if progress.stage == "distill":
                tracked.log(progress)
            if throttle.ready() or progress.step == progress.steps:
                shown = ", ".join(f"{key} {value:.3g}" for key, value in progress.metrics.items())
                screen.print(f"{progress.stage} {progress.step} of {progress.steps}  {shown}")

        try:
            if self._needs_ray():
                self._train_on_ray(screen, report)
            self._here(report)
        except BaseException:
            tracked.close("FAILED")
            raise
        curve = json.loads((self.store.directory(self.student) / "curve.json").read_text())
        tracked.finish(curve)
        return tracked.problem

    def _needs_ray(self) -> bool:
        wanted = self.options.workers.several or self.options.address
        return bool(wanted) and not self.store.done(self.student)

    def _train_on_ray(self, screen: Console, report: Report) -> None:
        import ray

        from raysweep.orchestration.on_ray.train import distill_on_workers

        start_ray(self.options.address)
        try:
            materialise_in_parallel(self.experiment.data, self.store.storage, screen)
            distill_on_workers(
                self.experiment,
                self.student,
                self.shards,
                storage=self.store.storage,
                counts=student_counts(self.experiment.student, self.options.workers),
                report=report,
            )
        finally:
            ray.shutdown()

    def _here(self, report: Report) -> None:
        """Train, if no worker has, and score in this process."""
        experiment, device = self.experiment, device_here()
        dataset = opened(experiment.data, self.store.storage.uri)
        run_with = Run(self.store, dataset, device, report)
        with self.store.claim(self.student) as workspace:
            if workspace is not None:
                found = learn_student(
                    experiment, self.shards, workspace, run_with, checkpoints=workspace
                )
                workspace.commit(found)
        with self.store.claim(self.scores) as workspace:
            if workspace is not None:
                model = load_student(self.store, self.student.key, device)
                px = experiment.data.px
                workspace.commit(
                    score(
                        experiment.evaluate,
                        model,
                        lambda split: dataset.images(split, px=px),
                        workspace,
                        run_with,
                    )
                )


def _summary(console: Console, store: StageStore, student: Stage, scores: Stage) -> None:
    went: Mapping[str, Any] = store.record(student)["metrics"]
    found = store.record(scores)["metrics"]
    console.print(
        f"mIoU {found['miou']:.4f} on the test split, pixel accuracy "
        f"{found['pixel_accuracy']:.4f}, candidate of step {found['candidate']}"
    )
    console.print(
        f"waited for data {went['waiting_share']:.1%} of the time, "
        f"{went['first_batch_seconds']:.1f} s for the first batch"
    )
    if len(went.get("worker_counts", [])) > 1:
        console.print(word_history(went["worker_counts"]))
    if went["bad_rows"]:
        console.print(f"{len(went['bad_rows'])} rows were skipped:")
        for text in went["bad_rows"]:
            console.print(f"  {text}", soft_wrap=True)
    console.print(f"student: {student}, {store.directory(student)}", soft_wrap=True)
