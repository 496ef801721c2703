"""Make images with a generator: a data set without labels, or samples for a person to label.

    python jobs/generate.py --generator pretrain/0123456789abcdef --count 10000 --out samples/
    python jobs/pretrain_contrastive.py --data samples/

writes ``unlabelled/<index>.png`` and Parquet files with the same images, so that every job takes
the folder as --data. MoCo trained on such images is a row of GanOrCon's table 6.

    python jobs/generate.py --generator imported_gan/ --count 40 --out to_label/ --to-label

writes ``images/<index>.png`` with their codes, and a README.txt that says where the masks go. With
them, ``--set annotated=to_label/`` fits on the labelled samples, as in DatasetGAN.

    python jobs/generate.py --generator pretrain/KEY --count 40 --out x/ --to-label --stand-in face

has a network that was trained on 4000 renderings label the samples in place of a person, which is
for benchmarks on the built-in data; the results say so.

Image i depends on the generator, seed, psi and i alone. Give the same command again after a kill:
images that are there are not made again; a higher --count adds to them. A thousand images of 32 px
take about ten seconds on one core and 6 MiB.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from raysweep.orchestration import cli
from raysweep.orchestration.tasks.generating import add_flags, run_generating


def main(argv: Sequence[str] | None = None) -> int:
    """Make the images; return the exit code."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(flags)
    return run_generating(flags.parse_args(argv))


if __name__ == "__main__":
    cli.finish(main)
