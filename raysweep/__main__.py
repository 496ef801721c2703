"""What the package says of itself: ``python -m raysweep licences``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from raysweep.licences import listing


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    flags = argparse.ArgumentParser(prog="python -m raysweep", description=__doc__)
    commands = flags.add_subparsers(dest="command", required=True, metavar="COMMAND")
    summary = "list data sets and weights, their terms, sources and citations"
    commands.add_parser("licences", help=summary, description=summary)
    flags.parse_args(argv)
    print(listing())
    return 0


if __name__ == "__main__":
    sys.exit(main())
