"""An object store on this machine: S3 as moto speaks it, over HTTP."""

from __future__ import annotations

import logging
import os
import uuid
from contextlib import contextmanager

import pyarrow.fs as pafs
from moto.server import ThreadedMotoServer

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Bucket:
    """A bucket of a server on a loopback port.

    Attributes:
        files: the server as a file system.
        query: what a URI needs to find the server.
    """

    def __init__(self, port: int) -> None:
        endpoint = f"127.0.0.1:{port}"
        self.query = f"endpoint_override={endpoint}&scheme=http"
        self.name = f"bucket-{uuid.uuid4().hex[:8]}"
        self.files = pafs.S3FileSystem(
            endpoint_override=endpoint, scheme="http", allow_bucket_creation=True
        )
        self.files.create_dir(self.name)

    def uri(self, place: str) -> str:
        return f"s3://{self.name}/{place}?{self.query}"

    def listed(self, place: str = "") -> dict[str, int]:
        """Names and sizes of the objects below a place, directories left out."""
        root = f"{self.name}/{place}".rstrip("/")
        found = self.files.get_file_info(
            pafs.FileSelector(root, recursive=True, allow_not_found=True)
        )
        is_file = pafs.FileType.File
        return {f.path.removeprefix(f"{root}/"): f.size for f in found if f.type == is_file}


@contextmanager
def serving():
    """Serve a new bucket while a block runs; this process and its children have its keys."""
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield Bucket(server.get_host_and_port()[1])
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
