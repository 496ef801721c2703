"""The loop restores, reduces, reports and checkpoints; a resume is bit for bit."""

from __future__ import annotations

import pytest
import torch

from raysweep import rng
from raysweep.orchestration.compute.worker import run


class Walk:
    """A learner whose state is one number: the running sum of what it has seen."""

    def __init__(self):
        self.total = torch.zeros(())

    def step(self, batch):
        self.total = self.total * 0.9 + batch["x"].mean()
        return {"loss": self.total.clone()}

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


class Memory:
    """Checkpoints in memory; counts how often it was written."""

    def __init__(self):
        self.state, self.saves = None, 0

    def save_checkpoint(self, state):
        self.state, self.saves = state, self.saves + 1

    def load_checkpoint(self):
        return self.state


def batch_at(step):
    return {"x": torch.randn(4, generator=rng.generator(3, "batch", step))}


def train(learner, memory, *, steps, **options):
    reports = []
    curve = run(
        learner,
        batch_at,
        name="fit",
        steps=steps,
        checkpoints=memory,
        report=reports.append,
        log_every=5,
        **options,
    )
    return curve, reports


def test_curve_holds_window_means_and_the_last_partial_window():
    learner, seen = Walk(), []
    curve, reports = train(
        learner, Memory(), steps=12, after_step=lambda _: seen.append(float(learner.total))
    )
    assert [row["step"] for row in curve] == [5, 10, 12]
    assert curve[0]["loss"] == pytest.approx(sum(seen[:5]) / 5)
    assert curve[2]["loss"] == pytest.approx(sum(seen[10:]) / 2)
    assert [(progress.step, progress.steps) for progress in reports] == [
        (5, 12),
        (10, 12),
        (12, 12),
    ]


@pytest.mark.parametrize("killed_at", [6, 10, 13, 19])
def test_resume_equals_straight_through_bit_for_bit(killed_at):
    straight = Walk()
    expected, _ = train(straight, Memory(), steps=20, checkpoint_seconds=0)

    class KilledError(Exception):
        pass

    def kill(step):
        if step == killed_at:
            raise KilledError

    memory = Memory()
    with pytest.raises(KilledError):
        train(Walk(), memory, steps=20, checkpoint_seconds=0, after_step=kill)
    resumed, steps = Walk(), []
    curve, _ = train(resumed, memory, steps=20, checkpoint_seconds=0, after_step=steps.append)
    assert curve == expected
    assert torch.equal(resumed.total, straight.total)
    assert steps[0] > killed_at - 5, "more than one checkpoint interval was done again"


def test_checkpoints_wait_for_their_interval():
    memory = Memory()
    train(Walk(), memory, steps=50, checkpoint_seconds=1e9)
    assert memory.saves == 0


def test_non_finite_loss_stops_with_stage_metric_and_step():
    class Diverging(Walk):
        def step(self, batch):
            return {"loss": torch.tensor(float("nan"))}

    memory = Memory()
    with pytest.raises(FloatingPointError, match="fit: loss is nan at step 5"):
        train(Diverging(), memory, steps=20, checkpoint_seconds=0)
    assert memory.saves == 0, "a broken state must never become the checkpoint"
