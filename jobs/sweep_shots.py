"""How many labelled images does which method need?

MoCo with an MLP and a CONV projector, DatasetGAN's ensemble, gradient matching and a network
trained on the labels alone, over 1 to 16 labelled images and several draws of them: the curve of
LAGM's figure 2 with error bars, in the layout of PFTGAN's tables. Representations are trained once
and shared with the other sweeps.

    python jobs/sweep_shots.py                               built-in faces, two CPU cores
    python jobs/sweep_shots.py --data my_parts/              own images and masks
    python jobs/sweep_shots.py --dry-run                     what would be done, and its cost

Give the same command again after a kill: it goes on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.sweeps.sweep import run_sweep
from search_spaces import shots


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep; return the exit code."""
    options = cli.parser(__doc__, sweep=True).parse_args(argv)
    return run_sweep("shots", shots, options)


if __name__ == "__main__":
    cli.finish(main)
