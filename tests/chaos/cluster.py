"""A Ray cluster of two nodes with one core each, and a head without any, on this machine.

Prints its address, then lives until it is killed; every process of it is a descendant of this one.
"""

from __future__ import annotations

import time

from ray.cluster_utils import Cluster


def main() -> None:
    """Start the cluster and stay."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    print(cluster.address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
