"""A directory of generated images: without labels, or with codes and to be labelled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import safetensors.torch
import torch
from rich.console import Console

from raysweep.config import ConfigError, from_dict, to_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.data.decoding import decode_image, encode_png
from raysweep.data.folder import EXAMPLE
from raysweep.data.parquet import INFO_NAME, ROWS_PER_GROUP, ShardWriter, write_info
from raysweep.data.records import Record, content_hash, counts_of, fingerprint
from raysweep.distill.labelling import LabelConfig
from raysweep.distill.teacher import BATCH, generate
from raysweep.orchestration import terminal
from raysweep.orchestration.compute.annotated import LINEAGE, Lineage, read_lineage
from raysweep.orchestration.compute.models import CODES
from raysweep.orchestration.store.storage import write_atomically
from raysweep.represent.gan_weights import CARD, GENERATOR, read_imported
from raysweep.represent.generators import read_generator

FOLDERS = {"unlabelled": "unlabelled", "to_label": "images"}
ROWS_PER_FILE = 8 * ROWS_PER_GROUP
README = """\
{count} images that a generator made, to be labelled by a person.

images/          the images. Do not rename, resize or change them.
masks/           put one PNG per labelled image here, of the same name and size: one 8-bit channel,
                 the value of a pixel is the number of its class. Images without one are not used.
classes.json     write it: the names of the classes by number, as in the data set that measures the
                 result, e.g. {example}
codes.safetensors, generated.json   what the images were made from; leave them as they are.

Then give any job with a generative representation --set annotated=<this directory>.
"""


class Samples:
    """A directory of generated images.

    Args:
        lineage: what they are.
        source: directory of the generator.
        out: directory of the images.

    Raises:
        ConfigError: the generator cannot be read.
    """

    def __init__(self, lineage: Lineage, source: Path, out: Path) -> None:
        self.lineage, self.out = lineage, out
        if (source / CARD).is_file():
            self.generator = read_imported(source).build_generator().requires_grad_(False)
        else:
            self.generator = read_generator(source / GENERATOR)
        self.px = self.generator.config.resolution
        self.images = out / FOLDERS[lineage.layout]
        self.names = [f"{index:06d}" for index in range(lineage.count)]
        self.config = from_dict(
            LabelConfig, {"seed": lineage.seed, "psi": lineage.psi, "px": self.px}
        )

    def check(self) -> None:
        """Check that the directory is new, or one of the same images.

        Raises:
            ConfigError: it holds something else.
        """
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"--out {str(self.out)!r} is a file; give a directory")
        if not self.out.exists() or not any(self.out.iterdir()):
            return
        if not (self.out / LINEAGE).is_file():
            raise ConfigError(
                f"--out {str(self.out)!r} is not empty and has no {LINEAGE}; give a new directory"
            )
        there = read_lineage(self.out)
        for name, value in to_dict(self.lineage).items():
            kept = getattr(there, name)
            if kept != value and not (name == "count" and kept < value):
                raise ConfigError(
                    f"--out {str(self.out)!r} holds images of {name} = {kept!r}, not {value!r}; "
                    "give a new directory"
                )

    @property
    def bytes_in_all(self) -> float:
        """Most that the directory takes: PNGs of photographs twice, or once and their codes."""
        image = self.px**2 * 3.5
        if self.lineage.layout == "unlabelled":
            return 2 * self.lineage.count * image
        config, shapes = self.generator.config, self.generator.synthesis.noise_shapes
        code = config.num_ws * config.w_dim + sum(side**2 for _, side, _ in shapes)
        return self.lineage.count * (image + 4 * code)

    def pixels(self) -> torch.Tensor:
        """Return all images ``(count, 3, px, px)`` uint8."""
        places = [self._place(name) for name in self.names]
        read = [decode_image(place.read_bytes(), px=self.px, where=place) for place in places]
        return torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in read])

    def missing(self) -> list[int]:
        """Return the indices of the images that are not there."""
        return [at for at, name in enumerate(self.names) if not self._place(name).is_file()]

    def make(self, console: Console) -> None:
        """Make what is missing."""
        self.images.mkdir(parents=True, exist_ok=True)
        for leftover in (*self.out.glob("*.tmp"), *self.images.glob("*.tmp")):
            leftover.unlink()
        if (self.out / LINEAGE).is_file() and read_lineage(self.out) != self.lineage:
            for name in (INFO_NAME, CODES):  # of fewer images
                (self.out / name).unlink(missing_ok=True)
        text = json.dumps(to_dict(self.lineage), indent=1) + "\n"
        write_atomically(self.out / LINEAGE, text.encode())
        if self.lineage.layout == "unlabelled":
            self._generate(console)
            self._write_dataset()
            return
        (self.out / "masks").mkdir(exist_ok=True)
        note = README.format(count=self.lineage.count, example=EXAMPLE)
        write_atomically(self.out / "README.txt", note.encode())
        codes = self._generate(console, keep=not (self.out / CODES).is_file())
        if codes:
            write_atomically(self.out / CODES, safetensors.torch.save(codes))

    def _generate(self, console: Console, *, keep: bool = False) -> dict[str, torch.Tensor]:
        """Write images; return the codes of all of them if they are to be kept."""
        from raysweep.orchestration.on_ray.slots import device_here

        missing, throttle = set(self.missing()), terminal.Throttle(10.0)
        if missing or keep:
            self.generator.to(device_here())
        kept: dict[str, torch.Tensor] = {}
        for first in range(0, self.lineage.count, BATCH):
            names = self.names[first : first + BATCH]
            wanted = missing.intersection(range(first, first + len(names)))
            if not wanted and not keep:
                continue
            images, codes = generate(self.generator, first, len(names), config=self.config)
            for index in sorted(wanted):
                pixels = images[index - first].permute(1, 2, 0).numpy()
                write_atomically(self._place(self.names[index]), encode_png(pixels))
            if keep:
                kept |= {name: code.clone() for name, code in zip(names, codes, strict=True)}
            if throttle.ready() or first + len(names) == self.lineage.count:
                console.print(f"{first + len(names)} of {self.lineage.count} images")
        return kept

    def _write_dataset(self) -> None:
        """Write the images once more as Parquet files: what the jobs read."""
        if (self.out / INFO_NAME).is_file():
            return
        hashes = []
        for first in range(0, len(self.names), ROWS_PER_FILE):
            with ShardWriter(self.out / f"unlabelled-{first // ROWS_PER_FILE:05d}.parquet") as file:
                for names in _groups(self.names[first : first + ROWS_PER_FILE]):
                    records = [Record(f"unlabelled/{name}", "unlabelled") for name in names]
                    images = [self._place(name).read_bytes() for name in names]
                    file.write(records, images=images, masks=[None] * len(names))
                    hashes += [
                        content_hash(record, image=image, mask=None)
                        for record, image in zip(records, images, strict=True)
                    ]
        info = DatasetInfo(
            name=self.out.resolve().name,
            classes=(),
            palette=(),
            licence="unknown",
            fingerprint=fingerprint(hashes, classes=(), flip_pairs=()),
            counts=counts_of(Record(name, "unlabelled") for name in self.names),
        )
        write_info(info, self.out)

    def _place(self, name: str) -> Path:
        return self.images / f"{name}.png"


def _groups(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), ROWS_PER_GROUP):
        yield names[first : first + ROWS_PER_GROUP]
