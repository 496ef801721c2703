"""Gather all sweeps of a storage into one HTML page: every table beside the papers', with figures.

    python jobs/report.py                                 the sweeps below runs/: runs/report.html
    python jobs/report.py --storage s3://bucket/runs      the same from an object store
    python jobs/report.py --dry-run                       what is there, and what is incomplete

The page is one file without scripts that refers to no other. The newest sweep comes first; of one
that is incomplete it names the command that finishes it. It goes to MLflow too, as an artifact of
the run "report". Nothing is computed: it takes seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.sweeps.reporting import run_report


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page; return the exit code."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument(
        "--storage",
        default="runs/",
        metavar="PATH_OR_URI",
        help="where results live, and the page goes (default: %(default)s)",
    )
    flags.add_argument("--dry-run", action="store_true", help="say what is there; write nothing")
    return run_report(flags.parse_args(argv))


if __name__ == "__main__":
    cli.finish(main)
