"""What the package says of itself: terms of data and weights, and whether work can run here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from raysweep.config import ConfigError
from raysweep.licences import listing
from raysweep.orchestration.on_ray.elastic import Workers, parse_workers

DOCTOR = """\
Check that work can run: versions, GPUs, data, storage, disk, memory, Ray, tokens, MLflow; with
--address also every node of the cluster. Without it nothing is started. Every finding comes with
its remedy.

    python -m raysweep doctor                                   this machine, preset demo
    python -m raysweep doctor --data my_parts/ --workers 4      before a sweep with these flags
    python -m raysweep doctor --address auto --storage s3://bucket/runs

Exit codes: 0 nothing failed; 1 something did; 2 a flag cannot be used.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    flags = argparse.ArgumentParser(prog="python -m raysweep", description=__doc__)
    commands = flags.add_subparsers(dest="command", required=True, metavar="COMMAND")
    summary = "list data sets and weights, their terms, sources and citations"
    commands.add_parser("licences", help=summary, description=summary)
    _add_doctor(commands)
    options = flags.parse_args(argv)
    if options.command == "licences":
        print(listing())
        return 0
    from raysweep.orchestration.doctor.examination import doctor  # torch takes seconds to import

    try:
        return doctor(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    flags = commands.add_parser(
        "doctor",
        help="check that work can run here, or on a cluster",
        description=DOCTOR,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument("--storage", default="runs/", help="of the job (default: %(default)s)")
    flags.add_argument("--address", help="Ray cluster to look at, e.g. auto (default: RAY_ADDRESS)")
    flags.add_argument("--preset", default="demo", help="of the job (default: %(default)s)")
    flags.add_argument("--data", metavar="PATH", help="of the job (default: the preset's)")
    flags.add_argument(
        "--workers",
        type=parse_workers,
        default=Workers(),
        metavar="N|MIN-MAX",
        help="of the job (default: %(default)s)",
    )


if __name__ == "__main__":
    sys.exit(main())
