"""How long must an image be looked for in a generator before its labels are good?

The direct score of DatasetGAN's ensemble on StyleGAN2 features over the iterations of the latent
optimisation (GanOrCon, table 3). The generator is trained once and shared with the projector sweep.

    python jobs/sweep_projection.py                          built-in faces, two CPU cores
    python jobs/sweep_projection.py --data my_parts/         own images and masks
    python jobs/sweep_projection.py --dry-run                what would be done, and its cost

Give the same command again after a kill: it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.sweeps.sweep import run_sweep
from search_spaces import projection


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep; return the exit code."""
    options = cli.parser(__doc__, sweep=True).parse_args(argv)
    return run_sweep("projection", projection, options)


if __name__ == "__main__":
    cli.finish(main)
