"""Small folder datasets, written to disk for tests."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["background", "left", "right"]


def picture(seed: int, *, width: int = 12, height: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def labels(seed: int, *, width: int = 12, height: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, len(CLASSES), (height, width), dtype=np.uint8)


def write_folder(folder: Path, *, labelled: int = 6, unlabelled: int = 2, **content) -> Path:
    """Write images 0, 1, ... with masks, and as many more as ``unlabelled`` without."""
    for name in ("images", "masks", "unlabelled"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(labelled):
        Image.fromarray(picture(index)).save(folder / "images" / f"{index}.png")
        Image.fromarray(labels(index)).save(folder / "masks" / f"{index}.png")
    for index in range(unlabelled):
        Image.fromarray(picture(100 + index)).save(folder / "unlabelled" / f"{index}.jpg")
    (folder / "classes.json").write_text(json.dumps({"classes": CLASSES} | content))
    return folder


def write_splits(folder: Path, *rows: str) -> None:
    (folder / "splits.csv").write_text("\n".join(("name,split,train_rank", *rows)) + "\n")


FULL_SPLITS = ("0,train,2", "1,train,0", "2,train,1", "3,val,", "4,test,", "5,unlabelled,")
