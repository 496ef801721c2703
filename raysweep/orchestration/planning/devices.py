"""Hours and memory of a plan on GPUs that are not at hand.

No figure here comes from a run on a GPU. Operations are counted from shapes; a device is taken to
reach a fixed part of the rate that its maker states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import rich.box
import rich.table
from rich.console import Console

from raysweep.data.records import Split
from raysweep.experiment import Experiment
from raysweep.nets.stylegan2 import StyleGan2Config
from raysweep.orchestration.compute.projecting import BATCH as SEARCHED_TOGETHER
from raysweep.orchestration.planning.estimate import Clock, Work
from raysweep.orchestration.planning.networks import networks_of
from raysweep.orchestration.planning.plan import Plan, Trial
from raysweep.orchestration.planning.shapes import discriminator_cost, generator_cost, trunk_cost
from raysweep.orchestration.store.stages import Stage, StageStore

SINGLE_EFFICIENCY = 0.33
"""Part of the fp32 rate, assumed; by this count GanOrCon's pretraining on FFHQ takes what the paper
reports, 7 days and 10 hours on four 1080 Ti."""
HALF_EFFICIENCY = 0.2
"""Part of the dense 16-bit rate, assumed: convolutions of this size wait for memory."""
CONTEXT_GIB = 1.0
PREDICTED_TOGETHER = 16


class Device(NamedTuple):
    """A GPU as its maker describes it.

    Attributes:
        name: what it is called.
        memory_gib: its memory.
        single: fp32 operations without tensor cores, in 10^12 per second.
        half: dense 16-bit operations accumulated in fp32, in 10^12 per second; 0 without tensor
            cores.
        bf16: whether bf16 is among them, not only fp16.
    """

    name: str
    memory_gib: int
    single: float
    half: float
    bf16: bool = True

    def seconds(self, work: Work, precision: str) -> float:
        """Return the time for some work at ``fp32``, ``fp16`` or ``bf16``."""
        has_half = self.half > 0 and (precision == "fp16" or (precision == "bf16" and self.bf16))
        rate = self.half * HALF_EFFICIENCY if has_half else self.single * SINGLE_EFFICIENCY
        return work.gflop / (rate * 1000)


LONG_SECONDS = 24 * 3600.0
"""Of one worker: what takes longer is better done on GPUs, and their hours are shown."""

DEVICES = (
    Device("GTX 1080 Ti", 11, 11.3, 0.0, bf16=False),
    Device("T4", 16, 8.1, 65.0, bf16=False),
    Device("V100", 32, 15.7, 125.0, bf16=False),
    Device("RTX 3090", 24, 35.6, 71.0),
    Device("A10G", 24, 31.5, 70.0),
    Device("L4", 24, 30.3, 121.0),
    Device("RTX 4090", 24, 82.6, 165.0),
    Device("L40S", 48, 91.6, 362.0),
    Device("A100", 80, 19.5, 312.0),
    Device("H100", 80, 67.0, 989.0),
    Device("H200", 140, 67.0, 989.0),
)


def precision_of(experiment: Experiment, stage: str) -> str:
    """Return in which precision a stage's networks run on a GPU."""
    represent = experiment.pretrain
    if stage in ("pretrain", "project") and represent.generative:
        network = represent.network if represent.trains_generator else None
        half = isinstance(network, StyleGan2Config) and network.half_blocks > 0
        return "fp16" if half else "fp32"
    if stage == "pretrain":
        return represent.precision
    if stage == "distill" or (stage == "evaluate" and experiment.distilled):
        return experiment.student.precision
    return experiment.fit.precision if experiment.fit.method == "projector" else "fp32"


def device_hours(stages: Mapping[Stage, list[Trial]], times: Clock) -> dict[Device, float]:
    """Return the hours that one GPU of each type takes for stages, one after the other.

    Args:
        stages: each with the trials that need it.
        times: knows what they are.
    """
    hours = dict.fromkeys(DEVICES, 0.0)
    for stage, (trial, *_) in stages.items():
        work = times.work(trial, stage)
        for device, more in hours_of(work, trial.experiment, stage.name).items():
            hours[device] += more
    return hours


def hours_of(work: Work, experiment: Experiment, stage: str) -> dict[Device, float]:
    """Return the hours that one GPU of each type takes for the work of a kind of stage."""
    precision = precision_of(experiment, stage)
    return {device: device.seconds(work, precision) / 3600 for device in DEVICES}


def gpu_gib(experiment: Experiment) -> dict[str, float]:
    """Return the GPU memory of each kind of stage, in GiB: weights, optimiser, activations.

    Activations are what autograd keeps, counted on shapes; workspaces of libraries are not. A
    stage that the experiment lacks has the memory of a process alone.
    """
    nets = networks_of(experiment)
    shots, fit = experiment.data.shots, experiment.fit
    maps = nets.map_numbers
    # every map and the two largest results of a layer are there at once
    predicted = PREDICTED_TOGETHER * (maps + 2 * nets.annotator.largest)
    fitted = fit.batch * (maps + nets.annotator.kept) + 4 * nets.annotator.weights
    if fit.method == "pixel_ensemble":
        fitted = shots * maps + 4 * nets.annotator.weights * fit.pixel.members
    if fit.method == "matching":
        once = 2 * nets.annotator.kept + 3 * nets.segmentor.kept
        fitted = fit.matching.generated_batch * (maps + once) + 6 * nets.segmentor.weights
    student = experiment.student
    numbers = {
        "pretrain": _pretraining_numbers(experiment),
        "project": SEARCHED_TOGETHER * nets.generator.kept,
        "fit": fitted,
        "label": predicted,
        "distill": student.batch * nets.student.kept + 4 * nets.student.weights,
        "evaluate": predicted if not experiment.distilled else 0.0,
    }
    return {name: count * 4 / 2**30 + CONTEXT_GIB for name, count in numbers.items()}


def _pretraining_numbers(experiment: Experiment) -> float:
    """Return numbers of 32 bits on one worker; activations of half precision count half."""
    represent = experiment.pretrain
    if represent.contrastive:
        trunk = trunk_cost(represent.trunk, represent.resolution, 2)
        views = 1 if represent.method == "moco" else 2
        part = 0.5 if represent.precision == "bf16" else 1.0
        queue = represent.moco.queue * represent.moco.dim
        return 4 * trunk.weights + queue + part * views * represent.batch * trunk.kept
    if not represent.trains_generator:
        return 0.0
    made, judged = generator_cost(represent.network), discriminator_cost(represent.network)
    part = 0.5 if precision_of(experiment, "pretrain") == "fp16" else 1.0
    # of the generator's step, or of the penalty, which differentiates twice
    kept = max(made.kept + judged.kept, 2 * judged.kept)
    return 5 * made.weights + 4 * judged.weights + part * represent.gan.batch * kept


def print_devices(
    console: Console, plan: Plan, store: StageStore, *, counts: Mapping[Split, int]
) -> None:
    """Print hours and memory by type of GPU of what is left of a plan."""
    left = {s: trials for s, trials in plan.stages().items() if not store.done(s)}
    print_hours(console, device_hours(left, Clock(plan.trials, store, counts)), most_memory(left))


def print_hours(console: Console, hours: Mapping[Device, float], need: Mapping[str, float]) -> None:
    """Print hours by type of GPU, and the memory of each kind of stage in GiB."""
    worst = max(need, key=lambda name: need[name])
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("GPU", "memory", "hours of one", "too small for"):
        table.add_column(heading, justify="right" if heading != "GPU" else "left")
    for device, count in hours.items():
        small = [name for name, gib in need.items() if gib > device.memory_gib]
        table.add_row(
            device.name, f"{device.memory_gib} GiB", f"{count:,.0f}", ", ".join(small) or "-"
        )
    console.print(
        "on GPUs: an estimate that was never measured on one. Operations counted from shapes, at "
        f"{SINGLE_EFFICIENCY:.0%} of the stated fp32 rate and {HALF_EFFICIENCY:.0%} of the 16-bit "
        "rate, which are assumptions"
    )
    console.print(table)
    console.print(
        f"GPU memory from shapes: {need[worst]:.0f} GiB at most, in {worst}; one worker, no "
        "workspace of libraries"
    )


def most_memory(stages: Mapping[Stage, list[Trial]]) -> dict[str, float]:
    """Return the largest GPU memory of each kind of stage, in GiB."""
    most: dict[str, float] = {}
    for stage, (trial, *_) in stages.items():
        gib = gpu_gib(trial.experiment)[stage.name]
        most[stage.name] = max(gib, most.get(stage.name, 0.0))
    return most
