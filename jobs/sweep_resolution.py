"""Which resolution pays: in pretraining, in the segmentor, or in both?

Three pretraining by three segmentor resolutions, each cell repeated over projector seeds and
draws of the labelled images, beside two baselines: raw colour and random weights
(GanOrCon, appendix E). The pretrainings are trained once and shared.

    python jobs/sweep_resolution.py                          built-in faces, two CPU cores
    python jobs/sweep_resolution.py --data my_parts/         own images and masks
    python jobs/sweep_resolution.py --dry-run                what would be done, and its cost
    python jobs/sweep_resolution.py --set data.shots=4       four labelled images

Give the same command again after a kill: it goes on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.sweeps.sweep import run_sweep
from search_spaces import resolution


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep; return the exit code."""
    options = cli.parser(__doc__, sweep=True).parse_args(argv)
    return run_sweep("resolution", resolution, options)


if __name__ == "__main__":
    cli.finish(main)
