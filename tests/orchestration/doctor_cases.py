"""What the doctor is asked to look at, and GPUs that are not there."""

from __future__ import annotations

import argparse
import os

from raysweep.orchestration.doctor.case import take
from raysweep.orchestration.doctor.examination import examine
from raysweep.orchestration.on_ray.elastic import Workers


def driver(monkeypatch, place, script):
    """Put an ``nvidia-smi`` of our own first on the path."""
    place.mkdir(exist_ok=True)
    command = place / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=os.pathsep)


def flags(tmp_path, **changes):
    storage = str(tmp_path / "runs")
    known = {"storage": storage, "address": None, "preset": "smoke", "data": None}
    return argparse.Namespace(**(known | {"workers": Workers()} | changes))


def found(tmp_path, **changes):
    return examine(take(flags(tmp_path, **changes)))


def built_with_cuda(monkeypatch):
    monkeypatch.setattr("torch.version.cuda", "13.2")
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])
