"""What a driver depends on in Ray: when it is gone, it says so, and ends when that is for good.

Ray itself ends a driver whose node or head has died, some of the time after a minute and without
a word to the user.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time

import ray

LOG = logging.getLogger(__name__)
PROBE_SECONDS = 0.5
PROBES = 3
"""Attempts in a row that must fail; a process that is stopped for a while still has its port."""

NODE_SECONDS = 10.0
LONGEST_SECONDS = 1800.0
"""Most seconds to wait for a node to work on: an autoscaler starts machines in minutes."""

Place = tuple[str, int]


def watch_ray() -> None:
    """Until ``ray.shutdown``, end this process with code 1 when Ray's head or its own node dies.

    The same when there is no other node to work on for half an hour. What is finished or has a
    checkpoint is safe.
    """
    threading.Thread(target=_watch, args=(_places(),), daemon=True).start()
    threading.Thread(target=_watch_nodes, daemon=True).start()


def _watch(places: dict[str, Place]) -> None:
    failed = dict.fromkeys(places, 0)
    while ray.is_initialized():
        for name, place in places.items():
            failed[name] = 0 if _answers(place) else failed[name] + 1
            if failed[name] == PROBES and ray.is_initialized():
                _end(f"{name} is gone ({place[0]}:{place[1]} does not answer)")
        time.sleep(PROBE_SECONDS)


def _watch_nodes() -> None:
    empty_since: float | None = None
    while ray.is_initialized():
        try:
            resources = ray.cluster_resources()
        except Exception:  # Ray raises several; the other thread finds out what is gone
            return
        if resources.get("CPU") or resources.get("GPU"):
            empty_since = None
        elif empty_since is None:
            empty_since = time.monotonic()
            LOG.warning("no node has a core or a GPU; waiting for one")
        elif time.monotonic() - empty_since > LONGEST_SECONDS:
            _end(f"no node has had a core or a GPU for {LONGEST_SECONDS / 60:.0f} minutes")
        time.sleep(NODE_SECONDS)


def _end(why: str) -> None:
    LOG.error(
        "%s; nothing that was finished or saved is lost: the same command goes on from there", why
    )
    os._exit(1)  # what waits for Ray would wait for ever, clean-ups included


def _places() -> dict[str, Place]:
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    places = {"Ray's head": (host, int(port))}
    for node in ray.nodes():
        if node["NodeID"] == context.get_node_id():
            place = (node["NodeManagerAddress"], node["NodeManagerPort"])
            places["Ray's node of this process"] = place
    return places


def _answers(place: Place) -> bool:
    try:
        with socket.create_connection(place, timeout=5):
            return True
    except TimeoutError:  # stopped, perhaps: nobody accepts, nobody refuses
        return True
    except OSError:
        return False
