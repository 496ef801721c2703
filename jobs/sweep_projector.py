"""Contrastive or generative features, and which projector on them, direct or distilled?

Representations (MoCo v2, SimSiam, StyleGAN2) x projectors (MLP, CONV, DatasetGAN's ensemble,
ReGAN's CNNs), evaluated directly and after distillation: GanOrCon's table 2 in shape, with
baselines and error bars, the paper's numbers beside them. Every representation is trained once.

    python jobs/sweep_projector.py                           built-in faces, two CPU cores
    python jobs/sweep_projector.py --data my_parts/          own images and masks
    python jobs/sweep_projector.py --dry-run                 what would be done, and its cost
    python jobs/sweep_projector.py --search optuna --num-samples 40
                                                             search a projector for MoCo v2

Give the same command again after a kill: it goes on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.sweeps.sweep import run_sweep
from search_spaces import projector


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep; return the exit code."""
    options = cli.parser(__doc__, sweep=True).parse_args(argv)
    return run_sweep("projector", projector, options)


if __name__ == "__main__":
    cli.finish(main)
