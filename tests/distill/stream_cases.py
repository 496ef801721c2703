"""Shards of uneven length, read as a stream."""

from raysweep.distill.stream import ShardStream
from tests.distill.pseudo import number

COUNTS = (7, 1, 0, 12, 3, 9, 5)  # 37 rows, uneven


def stream_of(shard_set, **options):
    files, root, manifest = shard_set
    options = {"seed": 0, "batch": 4, "shuffle_buffer": 12} | options
    return ShardStream(manifest, files=files, root=root, **options)


def numbers(batch):
    return [number(image) for image in batch["image"]]


def epoch(stream):
    return [numbers(batch) for batch in stream]
