import pytest

from support.paths import DATA

TINY = DATA / "tiny_classification_1.tar.gz"
HUB_PATH = "/google/imagenet/tiny/classification/1"


@pytest.fixture
def hub(http_server, monkeypatch):
    """A hub with one module, at ``HUB_PATH``."""
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    http_server.files[f"{HUB_PATH}?tf-hub-format=compressed"] = TINY.read_bytes()
    return http_server
