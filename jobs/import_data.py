"""Turn a download, or images of your own, into a data set that every job takes as --data.

    python jobs/import_data.py folder my_parts/ my_parts_parquet/
        images/, masks/ and classes.json (README, "Your own images"), checked and stored as they are
    python jobs/import_data.py images photos/ photos_parquet/
        images without labels, subfolders included
    python jobs/import_data.py celebamask-hq CelebAMask-HQ.zip celeba8/ --workers 2
        19 classes; --merge face8, face8_lagm or celebamask10; --partition lagm
    python jobs/import_data.py datasetgan annotation/ face34/ --category face
        face (34 classes), car (20, or --merge car12), cat (16)
    python jobs/import_data.py pascal-part VOC2010/ horse/ --category horse
        horse and aeroplane as in LAGM; other classes with --table FILE.json
    python jobs/import_data.py cgpart CGPart/ cgpart15/ --merge cgpart_car15
    python jobs/import_data.py lsun cat/ lsun_cat/ --take unlabelled=100000
    python jobs/import_data.py ffhq ffhq/images1024x1024/ ffhq/ --workers 2

Sources are folders, .zip or .tar archives, which are not unpacked. A killed import goes on where it
was when it is repeated; --on-error skip leaves out and counts files that cannot be used. A thousand
photographs of 256 px take about a second; 30,000 faces with 19 classes some five minutes.
At the end: images per split, share of pixels per class, and contact-sheet.png to look at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from raysweep.orchestration.tasks import importing


def main(argv: Sequence[str] | None = None) -> int:
    """Import a data set; return the exit code."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    importing.add_flags(flags)
    return importing.main(flags.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
