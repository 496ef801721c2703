"""How fast images are imported: against a plain loop of Pillow decoding and pyarrow writing.

Both sides take the same folder, made here: photographs (JPEG) or faces with a PNG per part, as in
CelebAMask-HQ. The plain loop reads a file, decodes it with Pillow (of a face: all parts, drawn over
one another, saved as PNG) and writes row groups of 128 with pyarrow and zstd, in one process. The
import checks names and sizes as well, hashes what it writes and draws a contact sheet. It does not
decode JPEG files to the end unless told to (--verify decode); one process converts labelled images
with a few threads. Starting more processes takes some ten seconds, which are part of its time.

    python benchmarks/import.py                         photographs, half a minute
    python benchmarks/import.py --kind celebamask-hq --images 2048 --px 1024
    python benchmarks/import.py --images 65536 --verify decode --workers 2

Prints images per second of both and their ratio. On a machine that others use too, the ratio of one
run says more than either speed.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raysweep.data.decoding import encode_png
from raysweep.data.parquet import ROWS_PER_GROUP, SCHEMA
from raysweep.data.published.celebamask_hq import LABELS, MAPPING
from raysweep.data.published.common import ImportConfig
from raysweep.orchestration.tasks.importing import run_import

DISTINCT = 64  # different images; the others are links to them
PARTS = ("skin", "nose", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "hair", "neck")


def main(argv: Sequence[str] | None = None) -> int:
    """Run both sides on the same files and print the comparison."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--kind", choices=("images", "celebamask-hq"), default="images")
    flags.add_argument("--images", type=int, default=8192, metavar="N")
    flags.add_argument("--px", type=int, default=256, metavar="PX", help="side of an image")
    flags.add_argument("--workers", type=int, default=1, metavar="N")
    flags.add_argument("--verify", choices=("ends", "decode"), default="ends")
    options = flags.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root, faces = Path(folder), options.kind == "celebamask-hq"
        names = make_faces(root, options.images, options.px) if faces else []
        names = names or make_photographs(root, options.images, options.px)
        plain = timed(lambda: plain_loop(root, names, root.with_name(f"{root.name}.parquet")))
        config = ImportConfig(kind=options.kind, verify=options.verify)
        target = root / "imported"
        ours = timed(lambda: run_import(root / "source", target, config, workers=options.workers))
        root.with_name(f"{root.name}.parquet").unlink()
    count = len(names)
    print(
        f"{count} {options.kind} of {options.px} px on {os.cpu_count()} cores, load at the end "
        f"{os.getloadavg()[0]:.1f}"
    )
    print(f"plain loop                   {count / plain:8.0f} images/s")
    label = f"import, {options.workers} processes"
    print(f"{label:28} {count / ours:8.0f} images/s   {plain / ours:.2f}x ({options.verify})")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"most memory of this process  {memory:8d} MiB")
    return 0


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def make_photographs(root: Path, count: int, px: int) -> list[tuple[Path, list[Path]]]:
    """Write JPEG files in folders of a thousand; return each with no parts."""
    names = []
    for index in range(count):
        path = root / "source" / f"{index // 1000:03d}" / f"{index:06d}.jpg"
        _link_or(path, root / f"{index % DISTINCT}.jpg", functools.partial(_photograph, index, px))
        names.append((path, list[Path]()))
    return names


def make_faces(root: Path, count: int, px: int) -> list[tuple[Path, list[Path]]]:
    """Write labelled images and a PNG of half the side per part."""
    names = []
    for index in range(count):
        image = root / "source" / "CelebA-HQ-img" / f"{index}.jpg"
        _link_or(image, root / f"{index % DISTINCT}.jpg", functools.partial(_photograph, index, px))
        folder = root / "source" / "CelebAMask-HQ-mask-anno" / str(index // 2000)
        parts = []
        for part in PARTS:
            path = folder / f"{index:05d}_{part}.png"
            _link_or(path, root / f"{part}.png", functools.partial(_part, part, px // 2))
            parts.append(path)
        names.append((image, parts))
    lines = [f"{index} {index} {index + 1:06d}.jpg" for index in range(count)]  # all of them train
    (root / "source" / MAPPING).write_text("\n".join(lines))
    return names


def plain_loop(root: Path, names: Iterable[tuple[Path, list[Path]]], target: Path) -> None:
    """Decode and write, as a script of twenty lines would."""
    rows: list[dict[str, object]] = []
    with pq.ParquetWriter(target, SCHEMA, compression="zstd") as writer:
        for image, parts in names:
            data = image.read_bytes()
            with Image.open(io.BytesIO(data)) as picture:
                picture.load()
            rows.append({"id": image.stem, "split": "train", "image": data, "mask": _drawn(parts)})
            if len(rows) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


def _drawn(parts: Sequence[Path]) -> bytes | None:
    if not parts:
        return None
    labels: np.ndarray | None = None
    for path in parts:
        index = LABELS.classes.index(path.stem.partition("_")[2])
        with Image.open(path) as layer:
            pixels = np.asarray(layer.convert("L"))
        labels = np.zeros(pixels.shape, dtype=np.uint8) if labels is None else labels
        labels[pixels > 0] = index
    assert labels is not None
    return encode_png(labels)


def _photograph(index: int, px: int) -> bytes:
    """Return a JPEG with the detail of a photograph: noise at several scales."""
    rng = np.random.default_rng(index)
    pixels = np.zeros((px, px, 3))
    for side in (4, 16, 64, px):
        noise = rng.normal(128, 40, (side, side, 3)).clip(0, 255).astype(np.uint8)
        pixels += np.asarray(Image.fromarray(noise).resize((px, px), Image.Resampling.BICUBIC)) / 4
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _part(part: str, px: int) -> bytes:
    mask = np.zeros((px, px), dtype=np.uint8)
    at = PARTS.index(part) * px // (2 * len(PARTS))
    mask[at : at + px // 3, at : at + px // 2] = 255
    return encode_png(mask)


def _link_or(path: Path, first: Path, make: Callable[[], bytes]) -> None:
    if not first.exists():
        first.write_bytes(make())
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(first, path)


if __name__ == "__main__":
    raise SystemExit(main())
