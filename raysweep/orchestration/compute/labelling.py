"""The label stage: a fitted projector says what is in many images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow.fs as pafs
import torch

from raysweep.config import ConfigError, to_dict
from raysweep.data.dataset import Dataset, DatasetInfo
from raysweep.distill.labelling import LabelConfig, Unit, generated_names
from raysweep.distill.manifest import Manifest
from raysweep.distill.production import Production
from raysweep.distill.rows import ShardRow
from raysweep.distill.teacher import Teacher, generate
from raysweep.experiment import Experiment
from raysweep.features.generator import GeneratorFeatures
from raysweep.orchestration.compute.chain import Chain
from raysweep.orchestration.compute.models import candidates_of, load_fit
from raysweep.orchestration.compute.worker import Progress, Run
from raysweep.orchestration.store.stages import StageStore, Workspace
from raysweep.orchestration.store.storage import write_atomically

INFO = "dataset.json"


class Read(NamedTuple):
    """The images of a unit: ids, and ``(count, 3, px, px)`` uint8."""

    names: list[str]
    images: torch.Tensor


class TeacherPass:
    """A teacher, the last candidate of a fit, in this process.

    Args:
        store: where the fit stage is.
        key: of the fit stage.
        config: what is labelled.
        device: where the teacher lives.

    Raises:
        ConfigError: the teacher cannot label images of the config's source.
    """

    def __init__(
        self, store: StageStore, key: str, *, config: LabelConfig, device: torch.device
    ) -> None:
        model = load_fit(store, key, device)
        check_source(config, takes_codes=model.takes_codes)
        model.load(candidates_of(model)[-1])
        self.key, self.config, self.info = f"fit/{key}", config, model.info
        self.representation = model.representation
        self.teacher = Teacher(
            model.representation, model.projector, resolution=model.px, config=config
        )

    def rows(self, unit: Unit, read: Read | None) -> list[ShardRow]:
        """Return the rows of a unit, whose images are generated if they are not given."""
        if read is not None:
            return self.teacher.rows(read.names, read.images, read.images, key=self.key)
        assert isinstance(self.representation, GeneratorFeatures)
        images, codes = generate(
            self.representation.generator, unit.first, unit.images, config=self.config
        )
        return self.teacher.rows(generated_names(unit), images, codes, key=self.key)


def check_source(config: LabelConfig, *, takes_codes: bool) -> None:
    """Check that a teacher can label what it is given.

    Raises:
        ConfigError: a teacher on a generator knows generated images only, others only given ones.
    """
    if takes_codes == (config.source == "generated"):
        return
    if takes_codes:
        raise ConfigError(
            "label.source = 'unlabelled': this teacher stands on a generator and labels images "
            "that it generates; set label.source=generated"
        )
    raise ConfigError(
        "label.source = 'generated': this teacher's representation generates no images; set "
        "label.source=unlabelled"
    )


def read_unit(dataset: Dataset, unit: Unit, *, px: int) -> Read:
    """Decode the images of a unit of a dataset's unlabelled images."""
    split = dataset.pretraining_split()
    names = list(dataset.names(split)[unit.first : unit.first + unit.images])
    return Read(names, dataset.images(split, px=px, names=names))


def production_of(
    config: LabelConfig,
    *,
    teacher: str,
    classes: int,
    dataset: DatasetInfo | None,
    files: pafs.FileSystem,
    root: str,
) -> Production:
    """Begin a set of shards, or go on with it.

    Args:
        config: what is labelled.
        teacher: key of the fit stage.
        classes: number of classes, background included.
        dataset: where the images are from; None if they are generated.
        files: the file system.
        root: directory of the shards.

    Raises:
        ConfigError: there is no image, or other shards lie there.
    """
    images = config.images
    if dataset is not None:
        available = dataset.counts["unlabelled"] or dataset.counts["train"]
        images = min(images, available)
        if not images:
            raise ConfigError(f"{dataset.name} has no unlabelled image; add some to label")
    production = Production(
        files=files,
        root=root,
        config=config,
        images=images,
        teacher=f"fit/{teacher}",
        num_classes=classes,
    )
    production.begin("generated" if dataset is None else dataset.fingerprint)
    return production


def label(
    experiment: Experiment, chain: Chain, workspace: Workspace, run_with: Run
) -> dict[str, Any]:
    """Leave ``shard-<number>.parquet``, ``manifest.json`` and ``dataset.json`` of the classes."""
    config, dataset = experiment.label, run_with.dataset
    teacher = TeacherPass(run_with.store, chain.fit.key, config=config, device=run_with.device)
    workspace.load_checkpoint()  # it holds the time that earlier attempts took
    production = production_of(
        config,
        teacher=chain.fit.key,
        classes=len(teacher.info.classes),
        dataset=None if config.source == "generated" else dataset.info,
        files=pafs.LocalFileSystem(),
        root=str(workspace.path),
    )
    for shard in production.missing():
        production.write(shard, _rows(production, shard, teacher, dataset, run_with))
        workspace.save_checkpoint({})
    return leave(production, teacher.info, workspace)


def _rows(
    production: Production, shard: int, teacher: TeacherPass, dataset: Dataset, run_with: Run
) -> Iterator[ShardRow]:
    config = production.config
    for unit in production.units(shard):
        generated = config.source == "generated"
        yield from teacher.rows(unit, None if generated else read_unit(dataset, unit, px=config.px))
        done = unit.first + unit.images
        run_with.report(Progress("label", done, production.images, {}))


def leave(production: Production, info: DatasetInfo, workspace: Workspace) -> dict[str, Any]:
    """Finish a stage's shards; return its metrics."""
    manifest = production.finish()
    write_atomically(workspace.path / INFO, json.dumps(to_dict(info), indent=1).encode())
    return counts_of(manifest, labelled=production.images)


def counts_of(manifest: Manifest, *, labelled: int) -> dict[str, Any]:
    """Return what a label stage reports."""
    pixels = max(1, sum(manifest.class_pixels))
    return {
        "images": manifest.rows,
        "dropped": labelled - manifest.rows,
        "files": len(manifest.files),
        "bytes": manifest.bytes,
        "background": manifest.class_pixels[0] / pixels,
    }
