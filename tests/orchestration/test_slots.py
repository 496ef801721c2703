"""How many trials run at a time, and what each may take of a GPU."""

from __future__ import annotations

import pytest
import ray
import torch

from raysweep.orchestration.cli import parser
from raysweep.orchestration.on_ray import slots
from raysweep.orchestration.on_ray.slots import Gpus, Slots

GIB = 2**30


def cluster_of(monkeypatch, **resources):
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (Gpus(), Slots({"cpu": 1.0, "gpu": 1.0}, 2)),
        (Gpus(share=0.25), Slots({"cpu": 1.0, "gpu": 0.25}, 8)),
        (Gpus(share=0.1), Slots({"cpu": 1.0, "gpu": 0.1}, 20)),
        (Gpus(share=0.4), Slots({"cpu": 1.0, "gpu": 0.4}, 4)),
        (Gpus(count=8, share=0.5), Slots({"cpu": 1.0, "gpu": 0.5}, 16)),
    ],
)
def test_trials_that_share_gpus_run_side_by_side(gpus, expected, monkeypatch):
    cluster_of(monkeypatch, CPU=16.0, GPU=2.0)
    assert Slots.of_cluster(gpus) == expected


def test_without_gpus_every_core_has_a_trial(monkeypatch):
    cluster_of(monkeypatch, CPU=16.0)
    assert Slots.of_cluster(Gpus(share=0.25)) == Slots({"cpu": 1.0}, 16)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "half", "nan"])
def test_impossible_shares_are_refused(value, capsys):
    with pytest.raises(SystemExit) as ended:
        parser("a job", sweep=True).parse_args(["--gpus-per-trial", value])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert value in said
    assert "above 0 and up to 1" in said


@pytest.mark.parametrize(("share", "gib"), [(0.25, 80), (0.1, 80), (0.5, 8), (0.1, 4)])
def test_shares_and_contexts_fit_into_a_gpu_together(share, gib, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (gib * GIB, gib * GIB))
    fraction = slots.memory_fraction(share)
    assert 0 < fraction < share
    if share * gib > 1.2:  # else a context leaves no room anyway
        each = fraction * gib * GIB + slots.CONTEXT_BYTES
        assert each * round(1 / share) <= gib * GIB * 1.0001


class Context:
    def __init__(self, share):
        self.share = share

    def get_assigned_resources(self):
        return {"CPU": 1.0, "GPU": self.share}


@pytest.mark.parametrize(("share", "capped"), [(0.25, [pytest.approx(0.25 - 0.6 / 80, 0.01)])])
def test_process_on_a_shared_gpu_is_held_to_its_share(share, capped, monkeypatch):
    caps = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (80 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", caps.append)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: Context(share))
    assert slots.device_here() == torch.device("cuda")
    assert caps == capped


def test_process_with_a_gpu_of_its_own_is_not_capped(monkeypatch):
    caps = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", caps.append)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: Context(1.0))
    slots.device_here()
    assert caps == []
