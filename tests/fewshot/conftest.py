from collections.abc import Iterator

import pytest

from tests.dist_pool import DistPool


@pytest.fixture(scope="module")
def dist_pool() -> Iterator[DistPool]:
    pool = DistPool()
    yield pool
    pool.close()
