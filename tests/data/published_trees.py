"""Published data sets in miniature, in the layouts in which they are downloaded."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from raysweep.data.imports import import_published
from raysweep.data.parquet import read_parquet
from raysweep.data.published.common import ImportConfig

PX = 12
PARTS = [
    *("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"),
    *("mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
]


def picture(seed, *, width=PX, height=PX, grey=False):
    shape = (height, width) if grey else (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def rotated(path, pixels):
    """Save a JPEG whose tag asks viewers to turn it by a quarter."""
    image = Image.fromarray(pixels)
    tag = image.getexif()
    tag[0x0112] = 6
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=tag, quality=95)
    return path


def part_layer(number, part):
    layer = np.zeros((PX // 2, PX // 2), dtype=np.uint8)
    rows = np.random.default_rng([number, PARTS.index(part)])
    top, left = rows.integers(0, PX // 4, 2)
    layer[top : top + PX // 4, left : left + PX // 4] = 255
    return layer


def write_celebamask(root, numbers, *, parts=("skin", "nose", "l_eye", "hair"), originals=None):
    """Write images of ``PX`` and parts at half that; hair and hat never occur unless asked for."""
    for number in numbers:
        save(root / "CelebA-HQ-img" / f"{number}.jpg", picture(number))
        folder = root / "CelebAMask-HQ-mask-anno" / str(number // 2000)
        for part in parts:
            save(folder / f"{number:05d}_{part}.png", part_layer(number, part))
    if originals is not None:
        lines = ["idx orig_idx orig_file"]
        lines += [f"{n} {originals[n]} {originals[n] + 1:06d}.jpg" for n in numbers]
        (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines) + "\n")
    return root


def label_array(seed, classes, *, width=PX, height=PX):
    return np.random.default_rng(seed).integers(0, classes, (height, width))


def save_npy(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def write_datasetgan(root, *, train=3, test=12):
    for number in range(train):
        folder = root / "training_data" / "face_processed"
        save(folder / f"image_{number}.jpg", picture(number))
        save_npy(folder / f"image_mask{number}.npy", label_array(number, 34))
    for number in range(test):
        folder = root / "testing_data" / "face_34_class"
        save(folder / f"face_{number}.png", picture(100 + number))
        save_npy(folder / f"image_mask{number}.npy", label_array(100 + number, 34))
    return root


def zipped(folder, archive):
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as sink:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                sink.write(path, f"download/{path.relative_to(folder).as_posix()}")
    return archive


def tarred(folder, archive):
    mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz"}[Path(archive).suffix]
    with tarfile.open(archive, mode) as sink:
        sink.add(folder, "./download")
    return archive


def imported(source, target, **settings):
    return import_published(source, target, ImportConfig(**settings), report=lambda *_: None)


def stored(target):
    """Return ids by split, images and masks as arrays, and ranks."""
    source = read_parquet(str(target))
    ids = {}
    for record in sorted(source.records, key=lambda record: record.id):
        ids.setdefault(record.split, []).append(record.id)
    every = [record.id for record in source.records]
    labelled = [record.id for record in source.records if record.split != "unlabelled"]
    images = dict(source.read("image", every))
    masks = {
        name: np.asarray(Image.open(io.BytesIO(data)))
        for name, data in source.read("mask", labelled)
    }
    ranks = {record.id: record.rank for record in source.records}
    return ids, images, masks, ranks


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
