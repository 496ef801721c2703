"""How much of a model's score is left when images are moved by some pixels?

GanOrCon, figure 2. Test images are moved to the right, their edge repeated, and labelled; all
shifts are scored on the same content. A model on a generator needs moved images to be looked for
anew: as long as a projection of as many images, per shift.

    python jobs/robustness.py --model best --data face
    python jobs/robustness.py --model fit/01234567 --model fit/89abcdef --data my_parts/
    python jobs/robustness.py --model best --data my_parts/ --shifts 0 1 2 4 8 16 --images 50

``--model`` as for jobs/predict.py, repeatable. Prints the table; robustness.csv and robustness.png
are in ``<storage>/robustness/``. On the built-in data a model on images takes seconds, one on a
generator half a minute on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.tasks import shifting


def main(argv: Sequence[str] | None = None) -> int:
    """Score models on shifted images; return the exit code."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shifting.add_flags(flags)
    return shifting.run_robustness(flags.parse_args(argv))


if __name__ == "__main__":
    cli.finish(main)
