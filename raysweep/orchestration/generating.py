"""The job behind ``jobs/generate.py``: samples of a generator, for learning or for labelling."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from rich.console import Console

from raysweep.config import ConfigError, from_dict, override, to_dict
from raysweep.data.dataset import DatasetInfo
from raysweep.data.decoding import decode_image, encode_png
from raysweep.data.folder import EXAMPLE
from raysweep.data.parquet import INFO_NAME, ROWS_PER_GROUP, ShardWriter, write_info
from raysweep.data.records import Record, content_hash, counts_of, fingerprint
from raysweep.data.render import DOMAINS
from raysweep.distill.labelling import LabelConfig
from raysweep.distill.teacher import BATCH, generate
from raysweep.orchestration import terminal
from raysweep.orchestration.annotated import LINEAGE, Lineage, read_lineage
from raysweep.orchestration.chain import chain_of
from raysweep.orchestration.models import CODES
from raysweep.orchestration.stages import StageStore
from raysweep.orchestration.standing_in import StandIn, Training, announce
from raysweep.orchestration.storage import Storage, write_atomically
from raysweep.orchestration.worker import Progress
from raysweep.presets import Experiment
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


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Add the job's flags."""
    flags.add_argument(
        "--generator",
        required=True,
        metavar="STAGE_OR_DIR",
        help="pretrain/KEY (a unique beginning is enough), the directory of such a stage, or one "
        "made by jobs/import_weights.py",
    )
    flags.add_argument("--count", required=True, type=int, metavar="N", help="number of images")
    flags.add_argument("--out", required=True, type=Path, metavar="DIR", help="what to make")
    flags.add_argument("--seed", type=int, default=0, help="of latents and noise (default: 0)")
    flags.add_argument("--psi", type=float, default=1.0, help="truncation, 0 to 1 (default: 1)")
    flags.add_argument(
        "--to-label", action="store_true", help="keep the codes, for a person to paint masks"
    )
    flags.add_argument(
        "--stand-in",
        choices=DOMAINS,
        help="with --to-label, of built-in data: a network that was trained on 4000 renderings "
        "labels the samples in place of a person",
    )
    flags.add_argument(
        "--storage",
        default="runs/",
        metavar="PATH_OR_URI",
        help="where stages are (default: %(default)s)",
    )
    flags.add_argument(
        "--dry-run", action="store_true", help="print what would be made; write nothing"
    )


def run_generating(options: argparse.Namespace) -> int:
    """Make the images that are missing; return the exit code.

    Raises:
        ConfigError: the input cannot be used; nothing has been written.
    """
    for flag, value, usable in (
        ("count", options.count, options.count >= 1),
        ("psi", options.psi, 0 <= options.psi <= 1),
    ):
        if not usable:
            allowed = "1 or more images" if flag == "count" else "0 to 1 (1 truncates nothing)"
            raise ConfigError(f"--{flag} {value}: {allowed}")
    if options.stand_in and not options.to_label:
        raise ConfigError("--stand-in: labels samples that are to be labelled; add --to-label")
    storage = Storage(options.storage)
    key, directory = find_generator(storage, options.generator)
    labelled_by: Literal["nobody", "person", "stand-in"] = "nobody"
    if options.to_label:
        labelled_by = "stand-in" if options.stand_in else "person"
    lineage = Lineage(
        generator=key,
        seed=options.seed,
        psi=options.psi,
        count=options.count,
        layout="to_label" if options.to_label else "unlabelled",
        labelled_by=labelled_by,
    )
    samples, console = Samples(lineage, directory, options.out.expanduser()), terminal.console()
    samples.check()
    console.print(
        f"generator pretrain/{key}: {lineage.count} images of {samples.px} px, "
        f"{len(samples.missing())} of them to make"
    )
    if options.dry_run:
        console.print(f"disk: up to {samples.bytes_in_all / 2**20:.0f} MiB")
        return 0
    samples.make(console)
    if options.stand_in:
        _have_labelled(samples, options.stand_in, StageStore(storage), console)
    console.print(f"made: {options.out}", soft_wrap=True)
    return 0


def _have_labelled(samples: Samples, domain: str, store: StageStore, console: Console) -> None:
    """Let the stand-in for a person label the samples."""
    from raysweep.orchestration.tune import device_here

    throttle = terminal.Throttle(10.0)

    def report(progress: Progress) -> None:
        if throttle.ready():
            console.print(announce(progress))

    stand_in = StandIn(domain, px=samples.px, store=store, training=Training())
    miou = stand_in.train(device=device_here(), report=report)
    stand_in.write(samples.out, samples.names, samples.pixels())
    console.print(f"labelled by the stand-in for a person, whose own mIoU is {miou:.3f}")


def find_generator(storage: Storage, name: str) -> tuple[str, Path]:
    """Return the key of a generator's pretrain stage, and the directory with its file.

    Args:
        storage: where stages are looked for.
        name: of a stage, or a directory: a stage's, or an imported generator's, whose key is that
            of the stage that it becomes.

    Raises:
        ConfigError: there is no such generator.
    """
    place = Path(name).expanduser()
    if (place / "stage.json").is_file() and (place / GENERATOR).is_file():
        return str(json.loads((place / "stage.json").read_text())["key"]), place
    if (place / CARD).is_file():
        changes = {"pretrain.method": "generator", "pretrain.weights": str(place)}
        return chain_of(override(Experiment(), changes), "").pretrain.key, place
    kind, _, beginning = name.rpartition("/")
    store, found = StageStore(storage), []
    if kind in ("", "pretrain") and beginning:
        found = [key for key in store.finished("pretrain") if key.startswith(beginning)]
    if len(found) != 1:
        what = "fits several stages; give more of the key" if found else "is no finished stage"
        raise ConfigError(
            f"--generator {name!r} {what} in {storage.uri}, and no directory of a "
            "generator; give pretrain/KEY, as jobs/pretrain_stylegan.py prints it, or a directory "
            "made by jobs/import_weights.py"
        )
    directory = store.directory_of("pretrain", found[0])
    if not (directory / GENERATOR).is_file():
        raise ConfigError(f"--generator {name!r}: pretrain/{found[0]} has no generator")
    return found[0], directory


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
        from raysweep.orchestration.tune import device_here

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
