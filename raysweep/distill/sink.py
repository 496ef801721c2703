"""An output stream that hashes what passes through it, so that no file is read to be hashed."""

from __future__ import annotations

import hashlib
from typing import Any


class HashedSink:
    """The part of a binary file that Arrow writes to.

    Args:
        stream: an open output stream of ``pyarrow.fs``.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._hash = hashlib.blake2b(digest_size=16)
        self._size = 0

    @property
    def closed(self) -> bool:
        """Whether it takes no more bytes."""
        return bool(self._stream.closed)

    def write(self, data: Any) -> int:
        """Append and return the number of bytes."""
        view = memoryview(data)
        self._hash.update(view)
        self._stream.write(data)
        self._size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._size

    def flush(self) -> None:
        """Hand buffered bytes on."""
        self._stream.flush()

    def close(self) -> None:
        """Finish the file; a second call does nothing."""
        self._stream.close()

    def hexdigest(self) -> str:
        """Return the hash of all bytes written."""
        return self._hash.hexdigest()
