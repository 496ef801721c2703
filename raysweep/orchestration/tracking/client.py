"""Where MLflow is, how every run is tagged, and how a slow server is kept from holding work up."""

from __future__ import annotations

import logging
import os
import re
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from raysweep.data.dataset import DatasetInfo
from raysweep.orchestration.store.cost import git_revision
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.terminal import clock

LOG = logging.getLogger(__name__)

# a dead server is given up after a minute at most, not after MLflow's four or more
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it asks for every run
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")


DATABASE_SECONDS = 120.0
"""Most seconds to wait for another process that makes or migrates the database."""

BATCH = 900  # MLflow takes at most 1000 metrics, params and tags in one call

SENDERS = 8
"""Calls to a server at a time: a slow one is waited for in parallel."""
SILENT_SECONDS = 10.0
"""A wait for MLflow that is longer than this is announced."""
END_SECONDS = 120.0
"""Most seconds that the end of a job waits for MLflow."""


class Sender:
    """Makes calls of MLflow on threads of its own, so that a slow server holds nobody up.

    After the first call that fails the others are dropped, and :attr:`problem` says why. What has
    not been sent when the process ends is dropped too.

    Args:
        threads: calls at a time; one keeps them in order.
    """

    def __init__(self, threads: int = 1) -> None:
        self.problem: str | None = None
        self._threads, self._started = threads, 0
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._left, self._announced = 0, False
        self._changed = threading.Condition()
        self._defect: Exception | None = None

    @property
    def idle(self) -> bool:
        """Whether all calls have been made or dropped."""
        return self._left == 0

    def post(self, call: Callable[[], object]) -> None:
        """Make a call as soon as a thread is free; return at once."""
        with self._changed:
            self._left += 1
        self._calls.put(call)
        if self._started < self._threads:
            self._started += 1
            threading.Thread(target=self._work, daemon=True, name="mlflow").start()

    def settle(self, until: float) -> bool:
        """Wait until all calls have been made; drop the rest at ``until`` (``time.monotonic()``).

        Returns:
            Whether everything has been sent.
        """
        if not self._wait(min(until, time.monotonic() + SILENT_SECONDS)) and not self._announced:
            self._announced = True
            left = clock(max(0.0, until - time.monotonic()))
            LOG.warning("MLflow answers slowly; waiting for it, %s at most", left)
        if not self._wait(until):
            self.problem = f"too slow: {self._left} results were not sent in time"
        if self._defect is not None:
            raise self._defect
        return self.problem is None

    def _wait(self, until: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.idle, max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            problem, defect = None, None
            try:
                if self.problem is None and self._defect is None:
                    problem = attempt(call)
            except Exception as error:  # no fault of MLflow's: raised where one waits
                defect = error
            with self._changed:
                self.problem = self.problem or problem
                self._defect = self._defect or defect
                self._left -= 1
                self._changed.notify_all()


def attempt(action: Callable[[], object]) -> str | None:
    """Run an action against MLflow; return in short what went wrong, if anything did."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        action()
    except (MlflowException, SQLAlchemyError, OSError) as error:
        return public(textwrap.shorten(str(error), width=120))
    return None


def public(text: str) -> str:
    """Return a text without the user names and passwords of its URIs."""
    return re.sub(r"://[^/@\s]*@", "://", text)


def tracking_uri(storage: Storage) -> str:
    """Return ``MLFLOW_TRACKING_URI``, or a database beside the results."""
    fallback = storage.local("mlflow.db")
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{fallback}"


def ui_command(storage: Storage) -> str:
    """Return the shell command that opens the MLflow UI on this sweep."""
    uri = tracking_uri(storage)
    return f"mlflow ui --backend-store-uri {uri}" if uri.startswith("sqlite") else f"open {uri}"


def stages_of_run(storage: Storage, run_id: str) -> dict[str, str]:
    """Return stage name to key of an MLflow run, empty when there is no such run."""
    from mlflow.exceptions import MlflowException

    try:
        tags = connect(storage).get_run(run_id).data.tags
    except MlflowException:
        return {}
    prefix = "raysweep.stage."
    return {
        key.removeprefix(prefix): value for key, value in tags.items() if key.startswith(prefix)
    }


def connect(storage: Storage) -> Any:
    """Return a client of the tracking server, or of the database beside the results.

    Two drivers that make the same database at the same time would break it: one makes it.
    """
    import mlflow

    logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)  # how it makes its tables
    uri = tracking_uri(storage)
    if not uri.startswith("sqlite:///"):
        return mlflow.MlflowClient(tracking_uri=uri)
    database = Path(uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f"{database.name}.lock"), timeout=DATABASE_SECONDS):
        return mlflow.MlflowClient(tracking_uri=uri)


@contextmanager
def tracked_by_default(storage: Storage) -> Iterator[None]:
    """Let MLflow's own functions, which take no client, write where :func:`connect` does.

    MLflow puts the place into the environment, where later processes would find it: it is put back.
    """
    import mlflow

    kept = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    connect(storage)  # makes the place of a database beside the results
    mlflow.set_tracking_uri(tracking_uri(storage))
    mlflow.set_registry_uri(tracking_uri(storage))
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def experiment_id(client: Any, storage: Storage, title: str) -> str:
    """Return the id of an MLflow experiment, made on first use with an absolute artifact root."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(title)
    if found:
        return str(found.experiment_id)
    beside = tracking_uri(storage).startswith("sqlite")  # else a server knows where
    root = f"file://{storage.local('mlflow-artifacts')}" if beside else None
    tags = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on its runs
    try:
        return str(client.create_experiment(title, artifact_location=root, tags=tags))
    except MlflowException:  # another driver was faster, or it cannot be made
        found = client.get_experiment_by_name(title)
        if found is None:
            raise
        return str(found.experiment_id)


def comparison_link(uri: str, experiment: str) -> str:
    """Return the page of the UI that compares configurations, best mIoU first."""
    server = uri.rstrip("/") if uri.startswith("http") else "http://localhost:5000"
    wanted = quote("tags.`raysweep.level` = 'configuration'", safe="")
    order = quote("metrics.`best/miou`", safe="")
    return (
        f"{server}/#/experiments/{experiment}/runs?searchFilter={wanted}"
        f"&orderByKey={order}&orderByAsc=false&compareRunsMode=CHART"
    )


def lineage_tags(info: DatasetInfo) -> dict[str, str]:
    """Return the tags that every run carries: code, data, user."""
    return {
        "mlflow.user": os.environ.get("USER", "raysweep"),
        "mlflow.source.name": "raysweep",
        "git.revision": git_revision(),
        "dataset.name": info.name,
        "dataset.fingerprint": info.fingerprint,
    }
