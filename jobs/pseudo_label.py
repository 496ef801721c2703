"""Label many images with a fitted model, its teacher, for a student to learn from.

Images are read, labelled and written side by side by Ray Data, one teacher per worker with a GPU
each if there are any, else one core. The shards are Parquet files that any reader opens.

    python jobs/pseudo_label.py --teacher best --data face
    python jobs/pseudo_label.py --teacher fit/0123456789abcdef --data photos_parquet/ --out shards/
    python jobs/pseudo_label.py --teacher best --generate 5000 --set label.portion=0.1
    python jobs/pseudo_label.py --teacher best --data face --set label.soft=5 --dry-run

The teacher is the last candidate of the fit; ``--set label.*`` says what is kept of its labels. A
thousand 64 px images take about ten seconds on one core. Give the same command again after a kill:
finished files are not made again.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.tasks.pseudo_labelling import add_flags, run_labelling


def main(argv: Sequence[str] | None = None) -> int:
    """Label the images; return the exit code."""
    flags = cli.parser(__doc__)
    add_flags(flags)
    return run_labelling(flags.parse_args(argv))


if __name__ == "__main__":
    cli.finish(main)
