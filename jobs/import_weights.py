"""Turn a published GAN checkpoint into weights of this project, without running code from it.

    python jobs/import_weights.py stylegan2-car.pkl weights/car/ --licence "CC BY-NC 4.0"
        NVIDIA's StyleGAN2-ADA (also as published with StyleGAN3)

    python jobs/import_weights.py 550000.pt weights/ffhq/
        rosinality's stylegan2-pytorch, or the StyleGAN port that DatasetGAN and LAGM load

The directory then holds the networks as safetensors and card.json with source, checksum and
licence. A 1024 px model takes some seconds. Bad input ends with one message and code 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from raysweep.orchestration.cli import finish
from raysweep.represent.gan_weights import import_checkpoint, save_imported


def main(argv: Sequence[str] | None = None) -> int:
    """Import a checkpoint; return the exit code."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("file", type=Path, metavar="FILE", help="the checkpoint")
    flags.add_argument("target", type=Path, metavar="DEST", help="directory to make")
    flags.add_argument(
        "--licence",
        default="unknown",
        metavar="TEXT",
        help="terms of the weights, kept in card.json (default: %(default)s)",
    )
    options = flags.parse_args(argv)
    imported = import_checkpoint(options.file)
    save_imported(imported, options.target, licence=options.licence)
    parts = "generator" if imported.discriminator is None else "generator and discriminator"
    print(
        f"{imported.source} ({imported.format}): {parts} at {imported.config.resolution} px; "
        f"in {options.target}"
    )
    for note in imported.notes:
        print(f"note: {note}")
    return 0


if __name__ == "__main__":
    finish(main)
