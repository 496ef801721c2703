"""The doctor's checks of machines: versions, devices, memory, disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.specifiers import SpecifierSet

from raysweep.orchestration.doctor import facts as doctor_facts
from raysweep.orchestration.doctor.case import Case, Finding
from raysweep.orchestration.doctor.cluster import Node
from raysweep.orchestration.doctor.facts import MISSING, Device, MachineFacts, requirements
from raysweep.orchestration.planning.devices import gpu_gib
from raysweep.orchestration.planning.estimate import disk_gib, peak_gib

SHOWN = ("torch", "torchvision", "ray", "mlflow", "optuna")
LEAST_DRIVER = {12: 525, 13: 580}
"""CUDA major version to the oldest driver for Linux that runs it."""
SHM_OF_RAY_GIB = 2.0
"""Ray keeps its object store on disk where /dev/shm is smaller."""
SHM_AT_ALL_GIB = 0.25
"""NCCL and Ray's workers end with bus errors below; Docker gives 0.06 by default."""
ROOM = 10
"""Pretrainings, with all that hangs on them, for which a sweep should find room."""
BESIDES_GIB = 1.0
"""For rendered images, logs, tables and what MLflow keeps."""
RAY_KEEPS_FREE = 0.05
"""Share of a disk below which Ray stops to spill objects and to start workers."""


def versions(case: Case) -> Finding:
    """Python and packages against what the installed raysweep asks for, on every machine."""
    wanted = requirements()
    if not wanted:
        return Finding("fail", "raysweep is not installed", "pip install -e . in its checkout")
    problems = [
        f"{node.name}: {problem}"
        for node in case.everywhere
        if node.facts is not None
        for problem in _unsupported(node.facts, wanted)
    ]
    facts = case.here.facts
    if facts is None:
        problems.append(f"{case.here.name}: {case.here.problem}")
    elif not _allows(requirements("torchvision").get("torch"), facts.packages.get("torch")):
        needed = requirements("torchvision")["torch"]
        problems.append(f"torchvision {facts.packages['torchvision']} needs torch{needed}")
    if problems or facts is None:
        remedy = "pip install -c constraints.txt -e . in raysweep's checkout on that machine"
        return Finding("fail", "; ".join(problems), remedy)
    shown = ", ".join(f"{name} {facts.packages[name]}" for name in SHOWN)
    return Finding("ok", f"Python {facts.python}, {shown}")


def _unsupported(facts: MachineFacts, wanted: dict[str, SpecifierSet]) -> list[str]:
    found = {"python": facts.python} | facts.packages
    return [
        f"{name} {found.get(name, MISSING)}, needed {allowed or 'in any version'}"
        for name, allowed in wanted.items()
        if not _allows(allowed, found.get(name, MISSING))
    ]


def _allows(allowed: SpecifierSet | None, version: str | None) -> bool:
    """Builds of a package (``+cu126``) and nightly ones count as their version."""
    if allowed is None or version is None:
        return True
    return version != MISSING and allowed.contains(version, prereleases=True)


def gpus(case: Case) -> Finding:
    """Every GPU against the architectures that its torch was compiled for, and its driver."""
    known = [(node, node.facts) for node in case.nodes or (case.here,) if node.facts is not None]
    listed = [(node, facts, device) for node, facts in known for device in facts.devices]
    if not listed:
        return Finding("ok", "no NVIDIA GPU; work runs on the cores")
    for node, facts, device in listed:
        bad = _unusable(device, facts)
        if bad is not None:
            return bad._replace(message=f"{node.name}: {bad.message}")
    names = sorted({device.name for _, _, device in listed})
    return Finding("ok", f"{len(listed)} x {', '.join(names)}")


def _unusable(device: Device, facts: MachineFacts) -> Finding | None:
    if facts.cuda is None:
        message = f"{device.name} stays idle: torch {facts.packages.get('torch')} has no CUDA"
        return Finding("warn", message, "install torch's CUDA build")
    capability = "{}.{}".format(*device.capability)
    if not built_for(device.capability, facts.architectures):
        built = " ".join(facts.architectures)
        remedy = "install a torch build that lists its architecture"
        if device.capability < (7, 5):
            remedy = "install torch 2.14 or older from PyTorch's cu126 wheels, the last for it"
        message = f"{device.name} has compute capability {capability}; torch is built for {built}"
        return Finding("fail", message, remedy)
    least = LEAST_DRIVER.get(int(facts.cuda.split(".")[0]), 0)
    if int(device.driver.split(".")[0]) < least:
        message = f"driver {device.driver}; torch's CUDA {facts.cuda} needs {least} or newer"
        return Finding("fail", message, "update the driver, or install torch for an older CUDA")
    return None


def gpu_memory(case: Case) -> Finding:
    """Memory of the smallest GPU against what the stages keep there, counted from shapes."""
    sizes = {
        device.memory_gib: f"{node.name}, {device.name}"
        for node in case.nodes
        if node.facts is not None
        for device in node.facts.devices
    }
    if not sizes:
        return Finding("ok", "no NVIDIA GPU")
    size, need = min(sizes), gpu_gib(case.experiment)
    message = f"{sizes[size]}: {size:.0f} GiB"
    large = [f"{name} about {gib:.0f}" for name, gib in need.items() if gib > size]
    if large:
        remedy = "use larger GPUs, or lower fit.resolution, data.px or the batch of that stage"
        return Finding("warn", f"{message}; needed for {', '.join(large)}", remedy)
    return Finding("ok", f"{message}; at most about {max(need.values()):.0f} needed")


def built_for(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Return whether code for one of the architectures runs on a GPU.

    ``sm_86`` runs on 8.6 and later minor versions of 8; ``compute_80`` is compiled by the driver
    for 8.0 and anything later; ``sm_90a`` runs on 9.0 only.
    """
    for name in architectures:
        kind, _, number = name.partition("_")
        exact, digits = number.endswith("a"), number.rstrip("af")
        if not digits.isdigit():
            continue
        version = (int(digits[:-1]), int(digits[-1]))
        same_major = version[0] == capability[0]
        later = version <= capability and not exact
        if version == capability or (later and (kind == "compute" or same_major)):
            return True
    return False


def memory(case: Case) -> Finding:
    """Memory of every machine against the plan's peak, one worker per GPU or core."""
    if isinstance(case.info, str):
        return Finding("warn", "not examined: the data cannot be read")
    counts = case.info.counts
    images = counts.get("unlabelled", 0) or counts.get("train", 0)
    each = peak_gib(case.experiment, images)
    remedy = "use machines with more memory, or give fewer images or a smaller data.px"
    for node in case.nodes:
        if node.facts is None:
            continue
        size, workers = node.facts.memory_gib, _workers_on(node)
        message = f"{node.name} has {size:.1f} GiB; a worker needs about {each:.1f}"
        if each > size:
            return Finding("fail", message, remedy)
        if each * workers > size:
            message += f", {workers} side by side {each * workers:.1f}"
            return Finding("warn", message, f"{remedy}; Ray kills and restarts what is too much")
    return Finding("ok", f"about {each:.1f} GiB per worker")


def _workers_on(node: Node) -> int:
    return max(1, int(node.resources.get("GPU", 0) or node.resources.get("CPU", 1)))


def shared_memory(case: Case) -> Finding:
    """Size of /dev/shm, where Ray keeps its objects and NCCL its buffers."""
    sizes = [
        (node.facts.shm_gib, node.name)
        for node in case.nodes
        if node.facts is not None and node.facts.shm_gib is not None
    ]
    if not sizes:
        return Finding("ok", "not used on this system")
    size, name = min(sizes)
    message = f"{name}: {size:.2f} GiB"
    remedy = "docker run --shm-size=8g; in Kubernetes an emptyDir with medium: Memory there"
    if size < SHM_AT_ALL_GIB:
        return Finding("fail", f"{message}; workers would end with bus errors", remedy)
    if size < SHM_OF_RAY_GIB:
        return Finding("warn", f"{message}; Ray would keep objects on disk", remedy)
    return Finding("ok", message)


def disk(case: Case) -> Finding:
    """Free disk against the weights, checkpoints and stages of the plan."""
    need = disk_gib(case.experiment)
    usable = [(node.name, node.storage) for node in case.everywhere if node.storage]
    free = [(storage.free_gib, name) for name, storage in usable if storage.problem is None]
    if not free:
        return Finding("warn", "not examined: the storage cannot be used")
    least, name = min(free)
    message = f"{name}: {least:.1f} GiB free; one pretraining takes about {need:.2f}"
    remedy = "free some, or give a --storage (for object stores: RAYSWEEP_SCRATCH) with more room"
    if least < need:
        return Finding("fail", message, remedy)
    if least < ROOM * need + BESIDES_GIB:
        return Finding("warn", f"{message}, a sweep several times that", remedy)
    return Finding("ok", message)


def ray_directory(case: Case) -> Finding:
    """Ray's own directory: writable by this user, and on a disk that is not nearly full."""
    del case
    place = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray"
    above = place if place.exists() else place.parent
    if not os.access(above, os.W_OK | os.X_OK):
        remedy = "set RAY_TMPDIR to a short path of your own"
        return Finding("fail", f"{above} cannot be written by this user", remedy)
    usage = shutil.disk_usage(above)
    if usage.free < RAY_KEEPS_FREE * usage.total:
        message = f"the disk of {above} is {1 - usage.free / usage.total:.0%} full"
        remedy = "free some; Ray neither spills objects nor starts workers above 95%"
        return Finding("fail", message, remedy)
    return Finding("ok", f"{above}, {doctor_facts.free_gib(above):.1f} GiB free")
