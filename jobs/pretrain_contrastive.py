"""Train one representation without labels: MoCo v2 or SimSiam, on one worker or many.

With one worker the training runs in this process; with more, under Ray Train, one GPU each if the
cluster has any (NCCL), else one core each (gloo). The result is a stage of the store, so that a
sweep with the same settings finds it done.

    python jobs/pretrain_contrastive.py                               built-in faces, one core
    python jobs/pretrain_contrastive.py --workers 4 --address auto    four GPUs of a cluster
    python jobs/pretrain_contrastive.py --workers 2-8 --address auto  as many as there are, 2 to 8
    python jobs/pretrain_contrastive.py --set pretrain.method=simsiam --set pretrain.lr=0.05
    python jobs/pretrain_contrastive.py --data my_images/ --set pretrain.resolution=64

Give the same command again after a kill: it goes on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.tasks.pretraining import run_pretraining


def main(argv: Sequence[str] | None = None) -> int:
    """Train the representation; return the exit code."""
    return run_pretraining(cli.parser(__doc__).parse_args(argv), methods=("moco", "simsiam"))


if __name__ == "__main__":
    cli.finish(main)
