import pytest

from tests.orchestration.object_store import CREDENTIALS


@pytest.fixture(scope="package")
def cluster():
    """One Ray of two cores for this folder; its processes have the keys of the object store."""
    import ray

    with pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=200 * 2**20,
        )
    yield
    ray.shutdown()
