"""The doctor's checks of what machines share: cluster, tokens, storage, MLflow, code, clocks."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from raysweep.config import ConfigError
from raysweep.orchestration.doctor.case import Case, Finding
from raysweep.orchestration.doctor.cluster import ClusterFacts
from raysweep.orchestration.doctor.facts import MISSING, MachineFacts
from raysweep.orchestration.store.storage import Storage
from raysweep.orchestration.tracking.client import attempt, connect, public, tracking_uri

MOST_SKEW = 5.0
"""Seconds by which a clock may be off before curves and ages of files are out of order."""
MAKE_TOKEN = (
    "on the head: `ray get-auth-token --generate`; copy its ~/.ray/auth_token to the same place "
    "here, or name the copy in RAY_AUTH_TOKEN_PATH"
)
UNREACHED = Finding("warn", "not examined: the cluster was not reached")


def data(case: Case) -> Finding:
    """Whether the data can be read here, and is where the nodes look for it."""
    if isinstance(case.info, str):
        first, _, more = case.info.partition("\n")
        remedy = "correct --data; the README shows what it may be"
        if more:
            remedy = "see what the job says with --dry-run: it names files and commands"
        return Finding("fail", first, remedy)
    blind = [node.name for node in case.nodes if node.storage and node.storage.lacks_data]
    if blind:
        message = f"{case.experiment.data.source} is not there on {', '.join(blind)}"
        return Finding("fail", message, "put it on storage that every node mounts at that path")
    counts = ", ".join(f"{count} {split}" for split, count in case.info.counts.items())
    return Finding("ok", f"{case.info.name}: {counts}")


def cluster(case: Case) -> Finding:
    """Whether the cluster can be joined and every node answers."""
    if not isinstance(case.cluster, ClusterFacts):
        remedy = f"look with `ray status --address {case.address}`; start it with `ray up`"
        if "AuthenticationError" in str(case.cluster):
            remedy = f"RAY_AUTH_MODE=token here, with the cluster's token; {MAKE_TOKEN}"
        return Finding("fail", f"{case.address} was not reached: {case.cluster}", remedy)
    silent = [f"{node.name}: {node.problem}" for node in case.nodes if node.facts is None]
    if silent:
        remedy = "install this raysweep on every node, or look at the node's /tmp/ray logs"
        return Finding("fail", "; ".join(silent), remedy)
    return Finding("ok", f"{case.address}: {len(case.nodes)} nodes answer")


def state_api(case: Case) -> Finding:
    """Whether the State API answers: without it a stopped training keeps its workers."""
    if not isinstance(case.cluster, ClusterFacts):
        return UNREACHED
    if case.cluster.state_problem is None:
        return Finding("ok", "answers")
    message = f"{case.cluster.state_problem}; a training that is stopped would keep its workers"
    remedy = "install ray[default] on the head and start it with --include-dashboard=true"
    return Finding("fail" if case.workers.several else "warn", message, remedy)


def tokens(case: Case) -> Finding:
    """Ray's token authentication: mode, token, and who else can read it."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode not in ("", "token", "disabled"):
        return Finding("fail", f"RAY_AUTH_MODE={mode} is no mode", "set it to token or disabled")
    if mode == "disabled":
        if case.address is None:
            return Finding("ok", "off (RAY_AUTH_MODE=disabled)")
        message = "off: whoever reaches the cluster's ports can run anything on it"
        return Finding("warn", message, "RAY_AUTH_MODE=token here and on every node")
    place = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return Finding("ok", "in RAY_AUTH_TOKEN")
    try:
        is_empty = not place.read_text().strip()
    except OSError:
        return _without_token(case, mode, place)
    if is_empty:
        return Finding("fail", f"{place} is empty", MAKE_TOKEN)
    if _is_open(place):
        return Finding("warn", f"others can read {place}", f"chmod 600 {place}")
    return Finding("ok", f"in {place}")


def _is_open(place: Path) -> bool:
    """Return whether other users can reach a file and read it."""
    folders = place.resolve().parents
    return bool(place.stat().st_mode & 0o004) and all(at.stat().st_mode & 0o001 for at in folders)


def _without_token(case: Case, mode: str, place: Path) -> Finding:
    is_named = "RAY_AUTH_TOKEN_PATH" in os.environ
    if case.address is None and not is_named:
        return Finding("ok", "none yet; Ray makes one when it starts here")
    if mode == "token" or is_named:
        return Finding("fail", f"no token can be read in {place}", MAKE_TOKEN)
    message = f"no token in {place}: a cluster that asks for one would refuse this machine"
    return Finding("warn", message, MAKE_TOKEN)


def storage(case: Case) -> Finding:
    """Whether every machine can write to the storage, and all mean the same place by it."""
    problems = [
        (node.name, node.storage.problem if node.storage else node.storage_problem)
        for node in case.everywhere
    ]
    bad = [f"{name}: {problem}" for name, problem in problems if problem]
    if bad:
        remedy = "give a --storage that all of them can write to: a shared mount or s3://bucket/dir"
        if case.address is None:
            remedy = "give a --storage that this user can write to"
        return Finding("fail", "; ".join(bad), remedy)
    where = "here" if case.address is None else f"here and on {len(case.nodes)} nodes"
    return Finding("ok", f"{case.storage} can be written {where}")


def mlflow(case: Case) -> Finding:
    """Whether runs can be recorded where MLFLOW_TRACKING_URI says, or beside the results."""
    try:
        place = Storage(case.storage)
    except ConfigError:
        return Finding("warn", "not examined: the storage cannot be opened")
    uri = tracking_uri(place)
    remedy = "start `mlflow server` there, or correct or unset MLFLOW_TRACKING_URI"
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///"))
        problem = _database_problem(database)
        remedy = f"make {database} writable, or set MLFLOW_TRACKING_URI"
    elif _is_directory(uri) and os.environ.get("MLFLOW_ALLOW_FILE_STORE") != "true":
        problem = "MLflow no longer writes to plain directories"
        remedy = "`mlflow migrate-filestore`, then MLFLOW_TRACKING_URI=sqlite:////path/mlflow.db"
    else:
        problem = attempt(lambda: connect(place).search_experiments(max_results=1))
    if problem is not None:
        return Finding("fail", public(f"{uri}: {problem}"), remedy)
    return Finding("ok", public(uri))


def _database_problem(database: Path) -> str | None:
    if not database.exists():
        above = next(folder for folder in database.absolute().parents if folder.exists())
        return None if os.access(above, os.W_OK) else f"{above} cannot be written"
    try:
        with closing(sqlite3.connect(database, timeout=2.0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        return str(error)
    return None


def _is_directory(uri: str) -> bool:
    return uri.startswith("file:") or ("://" not in uri and uri != "databricks")


def resources(case: Case) -> Finding:
    """The workers asked for against the machines that are up and those that may be started."""
    if case.address is not None and not isinstance(case.cluster, ClusterFacts):
        return UNREACHED
    types = case.cluster.types if isinstance(case.cluster, ClusterFacts) else ()
    use_gpus = any(node.resources.get("GPU") for node in case.nodes)
    now = sum(_slots(node.resources, use_gpus) for node in case.nodes)
    kind, asked = "GPUs" if use_gpus else "cores", f"--workers {case.workers}"
    possible = sum(
        _slots(item.resources, use_gpus) * (math.inf if item.most < 0 else item.most)
        for item in types
        if _slots(item.resources, use_gpus)
    )
    if max(now, possible) < case.workers.least:
        message = f"{asked}: there are {now} {kind}, and no more can be started"
        return Finding(
            "fail", message, f"ask for --workers {max(now, possible, 1)}, or add machines"
        )
    if not use_gpus and any(item.resources.get("GPU") and item.most for item in types):
        message = "no GPU machine is up: jobs started now would take the cores of the others"
        remedy = "keep one up: min_workers: 1 of its type in the cluster's file"
        return Finding("warn", message, remedy)
    if now < case.workers.least:
        message = f"{asked}: {now} {kind} are up; the autoscaler may start more"
        return Finding("warn", message, "start them first: min_workers in the cluster's file")
    return Finding("ok", f"{asked} of {now} {kind}")


def _slots(counted: Mapping[str, float], use_gpus: bool) -> int:
    """Return how many workers fit: each takes a core and, where there are any, a GPU."""
    cores = int(counted.get("CPU", 0))
    return min(cores, int(counted.get("GPU", 0))) if use_gpus else cores


def same_code(case: Case) -> Finding:
    """Python, packages and raysweep's source on every node against this machine's."""
    if not isinstance(case.cluster, ClusterFacts):
        return UNREACHED
    here = case.here.facts
    if here is None:
        return Finding("warn", f"not examined: {case.here.problem}")
    differing = [
        f"{node.name}: {', '.join(found)}"
        for node in case.nodes
        if node.facts is not None and (found := _differences(node.facts, here))
    ]
    if differing:
        remedy = "install the same checkout with constraints.txt everywhere, or one image for all"
        return Finding("fail", "; ".join(differing), remedy)
    return Finding("ok", f"raysweep {here.revision} and the same packages on every node")


def _differences(there: MachineFacts, here: MachineFacts) -> list[str]:
    packages = {"python": here.python} | here.packages
    others = {"python": there.python} | there.packages
    found = [
        f"{name} {others.get(name, MISSING)} in place of {version}"
        for name, version in packages.items()
        if others.get(name, MISSING) != version
    ]
    if there.code != here.code:
        found.append(
            f"raysweep {there.revision} (source {there.code}) in place of "
            f"{here.revision} ({here.code})"
        )
    return found


def clocks(case: Case) -> Finding:
    """Clocks of the nodes against this machine's."""
    if not isinstance(case.cluster, ClusterFacts):
        return UNREACHED
    off = [node for node in case.nodes if node.skew > MOST_SKEW]
    if off:
        message = ", ".join(f"{node.name} is off by {node.skew:.0f} s or more" for node in off)
        return Finding("warn", message, "let them follow a time server, e.g. chrony")
    return Finding("ok", f"agree within {MOST_SKEW:.0f} s")
