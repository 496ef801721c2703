"""What ``python -m raysweep doctor`` does: checks as data, a table of findings, remedies.

A check has a time limit, and one that fails, hangs or breaks hides none of the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import NamedTuple

import rich.box
import rich.table
from rich.console import Console

from raysweep.orchestration import terminal
from raysweep.orchestration.doctor import machine, services
from raysweep.orchestration.doctor.case import Case, Finding, take
from raysweep.orchestration.doctor.facts import limited

CHECK_SECONDS = 60.0


class Check(NamedTuple):
    """One thing to look at.

    Attributes:
        name: what the user reads.
        find: looks at it.
        of_clusters: whether it makes sense only with a cluster.
    """

    name: str
    find: Callable[[Case], Finding]
    of_clusters: bool = False


CHECKS = (
    Check("versions", machine.versions),
    Check("GPUs", machine.gpus),
    Check("data", services.data),
    Check("storage", services.storage),
    Check("disk", machine.disk),
    Check("memory", machine.memory),
    Check("GPU memory", machine.gpu_memory),
    Check("/dev/shm", machine.shared_memory),
    Check("Ray's directory", machine.ray_directory),
    Check("workers", services.resources),
    Check("tokens", services.tokens),
    Check("MLflow", services.mlflow),
    Check("cluster", services.cluster, of_clusters=True),
    Check("State API", services.state_api, of_clusters=True),
    Check("same code", services.same_code, of_clusters=True),
    Check("clocks", services.clocks, of_clusters=True),
)


def doctor(options: argparse.Namespace) -> int:
    """Look at everything, print the findings; return 1 if one of them is a failure, else 0.

    Args:
        options: ``storage``, ``address``, ``preset``, ``data`` and ``workers``.

    Raises:
        ConfigError: a flag cannot be used.
    """
    findings = examine(take(options))
    show(terminal.console(), findings)
    return int(any(finding.level == "fail" for finding in findings.values()))


def examine(case: Case, checks: Iterable[Check] = CHECKS) -> dict[str, Finding]:
    """Return the name of every check that applies, with what it found."""
    return {
        check.name: _found(check, case)
        for check in checks
        if case.address is not None or not check.of_clusters
    }


def _found(check: Check, case: Case) -> Finding:
    try:
        return limited(lambda: check.find(case), CHECK_SECONDS)
    except Exception as error:  # a defect of the check must not hide the others
        message = f"could not be examined: {type(error).__name__}: {error}"
        return Finding("fail", message, "see the other findings first; else report this one")


def show(console: Console, findings: dict[str, Finding]) -> None:
    """Print a table of findings, what is not ok with its remedy."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("", "check", "finding"):
        table.add_column(heading, no_wrap=heading != "finding")
    for name, finding in findings.items():
        table.add_row(finding.level, name, finding.message)
        if finding.remedy:
            table.add_row("", "", f"-> {finding.remedy}")
    console.print(table)
    levels = [finding.level for finding in findings.values()]
    console.print(f"{levels.count('fail')} failed, {levels.count('warn')} to look at")
