"""A sweep that loses a trial, is paused, and finds its newest checkpoint damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).with_name("chaos.py")

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def chaos(*flags):
    words = [sys.executable, str(CHAOS), "--runs", "1", "--pause", "3", *flags]
    return subprocess.run(words, capture_output=True, text=True, timeout=840, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_disturbed_sweep_ends_with_the_undisturbed_table():
    done = chaos("--together", "--kinds", "trial,pause,checkpoint")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 runs ended with the table of the undisturbed sweep" in done.stdout
