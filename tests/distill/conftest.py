import pytest

from tests.distill.pseudo import shards
from tests.distill.stream_cases import COUNTS


@pytest.fixture(scope="session")
def uneven(tmp_path_factory):
    """Shards of uneven length, only read."""
    return shards(tmp_path_factory.mktemp("uneven"), COUNTS)
