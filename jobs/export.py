"""Write a student as a torch.export program and as ONNX, and register it in MLflow.

    python jobs/export.py --model best --out exported/
    python jobs/export.py --model distill/0123456789abcdef --out exported/ --register my-parts

``student.pt2`` runs with torch alone, ``student.onnx`` (pip install raysweep[export]) without it.
Both take float32 RGB images from 0 to 255 at the side of the training, in batches of any size, and
return class scores. What they say of two images is compared with the student before the job ends; a
difference above 0.001 is an error. It takes about ten seconds, for the papers' DeepLab a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from raysweep.orchestration import cli
from raysweep.orchestration.tasks.exporting import run_export


def main(argv: Sequence[str] | None = None) -> int:
    """Export the student; return the exit code."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument(
        "--model", required=True, metavar="STAGE_OR_RUN", help="distill/KEY, a run's id, or best"
    )
    flags.add_argument("--out", required=True, type=Path, metavar="DIR")
    flags.add_argument(
        "--register", metavar="NAME", help="register it in MLflow under this name as well"
    )
    flags.add_argument("--storage", default="runs/", metavar="PATH_OR_URI")
    flags.add_argument("--dry-run", action="store_true", help="say what would be exported")
    return run_export(flags.parse_args(argv))


if __name__ == "__main__":
    cli.finish(main)
