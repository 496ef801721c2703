"""One thread and quiet libraries for every test, set before torch and Ray are imported."""

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import pytest
import torch

from tests.dist_pool import DistPool

torch.set_num_threads(1)

JOBS = Path(__file__).parents[1] / "jobs"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests, with the reason, where there is no GPU."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no GPU on this machine")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def script(monkeypatch, capfd):
    """Run a job as a shell does, but in this process, which has imported everything already."""

    def run(job, *flags):
        argv = [str(JOBS / f"{job}.py"), *map(str, flags)]
        monkeypatch.setattr(sys, "argv", argv)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(argv[0], run_name="__main__")
        return subprocess.CompletedProcess(argv, ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def dist_pool() -> Iterator[DistPool]:
    """Two gloo processes; starting them takes seconds."""
    pool = DistPool()
    yield pool
    pool.close()
