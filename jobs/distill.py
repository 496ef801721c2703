"""Train an ordinary segmentation network, a student, on the labels of a teacher, and score it.

The shards of jobs/pseudo_label.py go in; ``--data`` is the labelled dataset that scores the
student. With one process a plain reader decodes them; with more, or a cluster, Ray Train runs the
workers and Ray Data decodes beside them, in the same order.

    python jobs/distill.py --shards shards/ --data face
    python jobs/distill.py --shards label/0123456789abcdef --data face --workers 2
    python jobs/distill.py --shards s3://bucket/shards --data my_parts/ --preset paper --workers 8
    python jobs/distill.py --shards shards/ --set student.network=deeplab_thin --dry-run

On the built-in data it takes about a minute on one core. The share of time spent waiting for data
is printed at the end. Give the same command again after a kill: it goes on from the last
checkpoint. jobs/predict.py and jobs/export.py take the result.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.tasks.distilling import add_flags, run_distillation


def main(argv: Sequence[str] | None = None) -> int:
    """Train the student; return the exit code."""
    flags = cli.parser(__doc__)
    add_flags(flags)
    return run_distillation(flags.parse_args(argv))


if __name__ == "__main__":
    cli.finish(main)
