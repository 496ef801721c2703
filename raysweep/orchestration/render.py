"""Render a built-in dataset on all cores of the cluster, once."""

from __future__ import annotations

import ray
from rich.console import Console

from raysweep.data import builtin
from raysweep.orchestration.storage import Storage
from raysweep.presets import DataConfig
