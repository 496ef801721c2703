"""Train a StyleGAN2 on unlabelled images: the generative representation.

With one worker the training runs in this process; with more, under Ray Train, one GPU each if the
cluster has any (NCCL), else one core each (gloo). MLflow gets losses, the augmentation probability,
sample grids, and a Frechet distance: FID if pretrain.gan.inception names a file with the Inception
weights, else one in a trunk of fixed random weights, good for following one training only.

    python jobs/pretrain_stylegan.py                                 built-in faces, 32 px, one core
    python jobs/pretrain_stylegan.py --data my_images/ --set pretrain.gan.network.resolution=64
    python jobs/pretrain_stylegan.py --preset paper --data ffhq/ --workers 8 --address auto
    python jobs/pretrain_stylegan.py --set pretrain.gan.kimg=40 --dry-run

Give the same command again after a kill: it goes on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.tasks.pretraining import run_pretraining


def main(argv: Sequence[str] | None = None) -> int:
    """Train the generator; return the exit code."""
    return run_pretraining(cli.parser(__doc__).parse_args(argv), methods=("stylegan2",))


if __name__ == "__main__":
    cli.finish(main)
