import pytest

from raysweep.orchestration.doctor import facts as doctor_facts
from tests.orchestration.doctor_cases import driver


@pytest.fixture(scope="module")
def bucket():
    """An object store of this machine."""
    from tests.orchestration.object_store import serving  # moto takes a second

    with serving() as found:
        yield found


@pytest.fixture
def plain_user(monkeypatch, tmp_path):
    """A user without settings, tokens or GPUs, whose /dev/shm is large enough."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(doctor_facts, "SHM", tmp_path)
    driver(monkeypatch, tmp_path / "bin", "exit 1")
