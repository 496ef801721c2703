"""Can an annotator of generated images be learnt from a few labels by matching gradients?

How often the segmentor is updated (K), which parameters are matched, the segmentor's state and
size; MAML, inversion, pseudo-labels, DatasetGAN and training on the labels alone beside it. Every
row is scored by its annotator, its segmentor, and some by a student that learns from the annotator
afterwards: the ablations of LAGM, the paper's numbers beside ours, with learning curves over K and
the cost of a step. Generator and trunk are trained once, and shared with sweep_projector.

    python jobs/sweep_matching.py                            built-in faces, two CPU cores
    python jobs/sweep_matching.py --data my_parts/           own images and masks
    python jobs/sweep_matching.py --set data.shots=4         fewer labels
    python jobs/sweep_matching.py --dry-run                  what would be done, and its cost

Give the same command again after a kill: it goes on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.sweeps.sweep import run_sweep
from search_spaces import matching


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep; return the exit code."""
    options = cli.parser(__doc__, sweep=True).parse_args(argv)
    return run_sweep("matching", matching, options)


if __name__ == "__main__":
    cli.finish(main)
