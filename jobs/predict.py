"""Segment own images of any size with a model that a sweep left behind.

Writes one index mask (PNG, pixel value = class number) and one colour overlay per image.

    python jobs/predict.py --model best --images photos/ --out predictions/
    python jobs/predict.py --model fit/0123456789abcdef --images photos/ --out predictions/

``--model`` takes a stage (``fit/KEY`` or ``evaluate/KEY`` as printed in the report, a unique
beginning of a key is enough), the id of an MLflow run, or ``best``: the best evaluation in the
storage.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from raysweep.orchestration import cli
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tasks.prediction import find_model, predict_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Predict every image of a folder; return the exit code."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--model", required=True, metavar="STAGE_OR_RUN")
    flags.add_argument("--images", required=True, type=Path, metavar="DIR")
    flags.add_argument("--out", default=Path("predictions"), type=Path, metavar="DIR")
    flags.add_argument("--storage", default="runs/", metavar="PATH_OR_URI")
    options = flags.parse_args(argv)
    model = find_model(Storage(options.storage), options.model)
    count = predict_folder(model, images=options.images, out=options.out)
    print(
        f"{count} images: masks in {options.out / 'masks'}, overlays in {options.out / 'overlays'}"
    )
    return 0


if __name__ == "__main__":
    cli.finish(main)
