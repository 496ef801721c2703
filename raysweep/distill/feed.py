"""Batches by step, read ahead in a thread, and how long the training waited for them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from raysweep.distill.stream import BadRow, ShardStream
from raysweep.learner import Batch

ItemT = TypeVar("ItemT")
AHEAD = 2
"""Batches that are decoded before they are asked for."""

Reader = Callable[[int, int], Iterator[Batch]]
"""From a step up to another one: the batches between them."""


class Ahead(Generic[ItemT]):
    """Takes what an iterator yields in a thread of its own; errors come out where they belong.

    Args:
        items: the iterator; it is closed when this is.
        depth: items that wait at most.
    """

    def __init__(self, items: Iterator[ItemT], *, depth: int = AHEAD) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[ItemT | None, BaseException | None]] = queue.Queue(depth)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        try:
            for item in self._items:
                if not self._put((item, None)):
                    return
            self._put((None, StopIteration()))
        except BaseException as error:  # raised again where the item is asked for
            self._put((None, error))
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()

    def _put(self, item: tuple[ItemT | None, BaseException | None]) -> bool:
        while not self._over.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[ItemT]:
        return self

    def __next__(self) -> ItemT:
        item, error = self._queue.get()
        if error is not None:
            self._queue.put((None, error))  # whoever asks again gets it again
            raise error
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """Stop reading."""
        self._over.set()
        self._thread.join()


class Feed:
    """The batches of a training, a pure function of the step, read ahead.

    Attributes:
        first_seconds: time from the first question to the first batch.
        waited: seconds that later questions took.

    Args:
        stream: the order of the rows; it counts the bad ones.
        steps: of the training.
        read: how batches are read; one after the other in this process if left out.
    """

    def __init__(self, stream: ShardStream, *, steps: int, read: Reader | None = None) -> None:
        self.stream, self.steps = stream, steps
        self.read = read or self._plain
        self.first_seconds = self.waited = 0.0
        self._ahead: Ahead[Batch] | None = None
        self._next = -1
        self._since: float | None = None

    def batch_at(self, step: int) -> Batch:
        """Return the batch of a step; steps in order are read ahead.

        Raises:
            ShardError: names file, row group and row.
        """
        began = time.monotonic()
        if self._ahead is None or step != self._next:
            self.close()
            self._ahead = Ahead(self.read(step, self.steps))
        batch = next(self._ahead)
        self._next = step + 1
        now = time.monotonic()
        if self._since is None:
            self._since, self.first_seconds = now, now - began
        else:
            self.waited += now - began
        return batch

    @property
    def waiting_share(self) -> float:
        """Part of the time since the first batch that the training waited, in [0, 1]."""
        if self._since is None:
            return 0.0
        return self.waited / max(time.monotonic() - self._since, 1e-9)

    def close(self) -> None:
        """Stop reading."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _plain(self, start: int, end: int) -> Iterator[Batch]:
        self.stream.seek(start)
        done = start
        while done < end:
            for batch in self.stream:
                yield batch
                done += 1
                if done == end:
                    return

    def state_dict(self) -> dict[str, Any]:
        """Return the rows that were skipped; the position is the step."""
        return {"bad_rows": [list(bad) for bad in self.stream.bad_rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state made by :meth:`state_dict`."""
        position = self.stream.state_dict()
        self.stream.load_state_dict(position | {"bad_rows": state["bad_rows"]})


def bad_row_texts(rows: tuple[BadRow, ...]) -> list[str]:
    """Word bad rows for a user."""
    return [
        f"{bad.file}: row group {bad.group}, row {bad.at} ({bad.id!r}): {bad.reason}"
        for bad in rows
    ]
