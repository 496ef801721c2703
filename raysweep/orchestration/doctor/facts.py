"""What the doctor looks at on one machine: versions, code, devices, memory, disk, storage.

The same functions run on the user's machine and, as Ray tasks, on every node of a cluster.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from raysweep.config import Config, ConfigError
from raysweep.data.render import DOMAINS
from raysweep.orchestration.store.cost import git_revision
from raysweep.orchestration.store.storage import Storage

ResultT = TypeVar("ResultT")
MISSING = "missing"
SHM = Path("/dev/shm")
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
GPU_SECONDS = 15.0


class Device(Config):
    """A GPU as its driver describes it.

    Attributes:
        name: what the maker calls it.
        memory_gib: its memory.
        capability: CUDA compute capability, major and minor.
        driver: version of the driver, e.g. ``580.65.06``.
    """

    name: str
    memory_gib: float
    capability: tuple[int, int]
    driver: str


class MachineFacts(Config):
    """What one machine has.

    Attributes:
        python: its version.
        packages: required package to its version, or ``missing``.
        revision: git revision of raysweep, ``unknown`` outside a checkout.
        code: hash of raysweep's source files.
        devices: the GPUs that the driver lists, whether or not torch can use them.
        cuda: CUDA version that torch was built with; None for a CPU build.
        architectures: GPU architectures that torch was compiled for.
        memory_gib: memory of the machine or of its container.
        shm_gib: size of ``/dev/shm``; None where the system has none.
    """

    python: str
    packages: dict[str, str]
    revision: str
    code: str
    devices: tuple[Device, ...]
    cuda: str | None
    architectures: tuple[str, ...]
    memory_gib: float
    shm_gib: float | None


class StorageFacts(Config):
    """What one machine sees of the places that a sweep uses.

    Attributes:
        problem: why results cannot be kept there; None if they can.
        free_gib: free disk space where results or their local copies go.
        lacks_data: whether ``--data`` names a path that is not there.
    """

    problem: str | None
    free_gib: float
    lacks_data: bool


def limited(action: Callable[[], ResultT], seconds: float) -> ResultT:
    """Return what an action returns, or raise what it raises.

    Raises:
        TimeoutError: it takes longer; its thread is left behind and does not hold up the exit.
    """
    results: list[ResultT] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer in {seconds:.0f} s")
    return results[0]


def look() -> MachineFacts:
    """Return what this machine has; torch is imported, CUDA is not initialised."""
    import torch

    return MachineFacts(
        python=platform.python_version(),
        packages={name: version_of(name) for name in requirements() if name != "python"},
        revision=git_revision(),
        code=code_digest(),
        devices=devices(),
        cuda=torch.version.cuda,
        architectures=tuple(torch.cuda.get_arch_list()),
        memory_gib=_memory_gib(),
        shm_gib=shutil.disk_usage(SHM).total / 2**30 if SHM.is_dir() else None,
    )


def touch(uri: str, *, marker: str | None, data: str) -> StorageFacts:
    """Write a small file to the storage and delete it; look for one that the driver has written.

    Args:
        uri: ``--storage``.
        marker: name of the driver's file below the root, if there is one.
        data: ``data.source`` of the experiment.
    """
    is_path = data not in DOMAINS and "://" not in data
    lacks_data = is_path and not Path(data).exists()
    place, problem = Path(tempfile.gettempdir()), None
    try:
        storage = Storage(uri)
        place = storage.local()
        if marker is not None and not storage.exists(marker):
            problem = f"{uri} is another directory there than the one of this machine"
        with marked(storage):
            pass
    except (ConfigError, OSError) as error:
        problem = str(error)
    return StorageFacts(problem=problem, free_gib=free_gib(place), lacks_data=lacks_data)


@contextmanager
def marked(storage: Storage) -> Iterator[str]:
    """Keep a small file below the root of a storage for a block; yield its name.

    Raises:
        OSError: it cannot be written or deleted.
    """
    name = f".doctor-{uuid.uuid4().hex[:12]}"  # not the process id: containers share those
    storage.fs.create_dir(storage.root, recursive=True)
    with storage.fs.open_output_stream(storage.path(name)) as stream:
        stream.write(b"ok")
    try:
        yield name
    finally:
        storage.fs.delete_file(storage.path(name))


def requirements(package: str = "raysweep") -> dict[str, SpecifierSet]:
    """Return what an installed package needs, ``python`` included, its extras left out.

    Returns:
        Name to allowed versions; empty if the package is not installed.
    """
    try:
        lines = metadata.requires(package) or []
        python = str(metadata.metadata(package).json.get("requires_python", ""))
    except metadata.PackageNotFoundError:
        return {}
    needed = [item for item in map(Requirement, lines) if _is_needed(item)]
    return {"python": SpecifierSet(python)} | {item.name: item.specifier for item in needed}


def _is_needed(item: Requirement) -> bool:
    return item.marker is None or item.marker.evaluate({"extra": ""})


def version_of(package: str) -> str:
    """Return the version of an installed package, or ``missing``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return MISSING


def code_digest() -> str:
    """Return a hash of raysweep's source files; it tells checkouts apart that git does not."""
    root = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def devices() -> tuple[Device, ...]:
    """Return the NVIDIA GPUs of this machine, those hidden from this process included."""
    asked = "name,memory.total,compute_cap,driver_version"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=GPU_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = re.findall(r"^(.+), (\d+), (\d+)\.(\d+), (\S+)$", done.stdout, re.MULTILINE)
    return tuple(
        Device(
            name=name,
            memory_gib=int(mebibytes) / 1024,
            capability=(int(major), int(minor)),
            driver=version,
        )
        for name, mebibytes, major, minor, version in rows
    )


def free_gib(place: Path) -> float:
    """Return the free disk space where a directory is, or would be made."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free / 2**30


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gib() -> float:
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for place in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # absent, or "max"
            sizes.append(int(place.read_text()))
    return min(sizes) / 2**30
