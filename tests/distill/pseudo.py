"""Tiny pseudo-labelled rows and shards, and ways to damage them."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import torch
from PIL import Image

from raysweep import rng
from raysweep.data.decoding import encode_png
from raysweep.distill.rows import SCHEMA, ShardRow
from raysweep.distill.shards import encode_soft, write_manifest, write_shard

CLASSES = 3
TEACHER = "teacher-1"
LOCAL = pafs.LocalFileSystem()


def pixels(index, *, height=4, width=5):
    """An image whose first pixel is its number, so that it can be told from others."""
    draws = rng.numpy_generator(0, "pixels", index)
    image = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[0, 0] = index // 256, index % 256, 0
    return image, draws.integers(0, CLASSES, (height, width), dtype=np.uint8)


def probabilities(index, *, height=4, width=5):
    generator = rng.generator(0, "soft", index)
    return torch.randn(CLASSES, height, width, generator=generator).softmax(0)


def row(index, *, with_soft=False, **changes):
    image, mask = pixels(index)
    made = ShardRow(
        id=f"i{index}",
        image=encode_png(image),
        mask=encode_png(mask),
        uncertainty=index / 8,
        teacher=TEACHER,
        soft=encode_soft(probabilities(index), top=2) if with_soft else None,
    )
    return made._replace(**changes)


def number(image):
    """The index that :func:`pixels` put into an image (3, height, width)."""
    return int(image[0, 0, 0]) * 256 + int(image[1, 0, 0])


def jpeg(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def shards(root, counts, *, group=3, soft=False):
    """Write files of so many rows, numbered through; return file system, directory, manifest."""
    start, written = 0, []
    LOCAL.create_dir(str(root))
    for at, count in enumerate(counts):
        rows = [row(start + i, with_soft=soft) for i in range(count)]
        path = f"{root}/part-{at:06d}.parquet"
        written.append(write_shard(LOCAL, path, rows, num_classes=CLASSES, rows_per_group=group))
        start += count
    return LOCAL, str(root), write_manifest(LOCAL, str(root), written, teacher=TEACHER)


def write_unchecked(path, rows, *, group=3, schema=SCHEMA, drop=()):
    """Write what ShardWriter would refuse."""
    names = [name for name in schema.names if name not in drop]
    fields = [schema.field(name).with_nullable(True) for name in names]
    columns = {name: [getattr(made, name) for made in rows] for name in names}
    table = pa.table(columns, schema=pa.schema(fields, metadata=schema.metadata))
    pq.write_table(table, path, row_group_size=group, write_page_checksum=True)


def wide_mask():
    return encode_png(np.zeros((4, 6), dtype=np.uint8))


def high_mask():
    mask = np.zeros((4, 5), dtype=np.uint8)
    mask[2, 3] = CLASSES
    return encode_png(mask)


def colour_mask():
    return encode_png(np.zeros((4, 5, 3), dtype=np.uint8))


_CUT = {name: getattr(row(0), name)[:60] for name in ("mask", "image")}

BAD_ROWS = {
    "mask is no image": ({"mask": b"nothing"}, "mask: unreadable or truncated"),
    "mask is cut off": (
        {"mask": _CUT["mask"]},
        "mask: unreadable or truncated",
    ),
    "mask is missing": ({"mask": None}, "no mask"),
    "mask has colours": ({"mask": colour_mask()}, "mask of mode RGB"),
    "mask has another size": ({"mask": wide_mask()}, "image of 4 x 5 px, mask of 4 x 6 px"),
    "label is too high": ({"mask": high_mask()}, "label 3 out of range, known are 0 to 2"),
    "image is no image": ({"image": b"nothing"}, "image: unreadable or truncated"),
    "image is cut off": (
        {"image": _CUT["image"]},
        "image: unreadable or truncated",
    ),
    "image is missing": ({"image": None}, "no image"),
    "soft labels are damaged": ({"soft": b"nothing"}, "damaged soft labels"),
    "soft labels have another size": (
        {"soft": encode_soft(probabilities(0, width=6), top=2)},
        "soft labels of 4 x 6 px, mask of 4 x 5 px",
    ),
    "soft label is too high": (
        {"soft": encode_soft(torch.eye(4)[:, 3, None, None].expand(4, 4, 5), top=1)},
        "soft labels: label 3 out of range",
    ),
}
"""What is wrong: changes to a row, and what the message says."""
