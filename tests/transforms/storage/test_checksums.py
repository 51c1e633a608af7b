"""Lists on ``gs://`` match their checksum or give an error."""

import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet import footers
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.inputs.text_blocks import read_lines

LINES = [f"{n:07}.jpg" for n in range(800_000)]
TEXT = "\n".join(LINES).encode()


@pytest.fixture
def flipped(gcs, monkeypatch):
    """Makes the server flip a bit of an object's content at or after that byte; None for no change."""
    place = []
    real = gcs.server._serve

    def serve(handler, request, body):
        status, headers, content = real(handler, request, body)
        if request.path.startswith("/download/") and place and len(content) > place[0]:
            content = bytearray(content)
            content[place[0]] ^= 1
        return status, headers, bytes(content)

    monkeypatch.setattr(gcs.server, "_serve", serve)
    return place


@pytest.mark.parametrize(
    "data", [TEXT, gzip.compress(TEXT, 1), b"a.jpg", b""], ids=["plain", "gzip", "small", "empty"]
)
def test_a_list_is_checked_when_it_is_read_to_its_end(gcs, flipped, data):
    path = gcs.put("list.txt", data)
    lines = list(read_lines(path))
    assert lines == (LINES if len(data) > 10 else [line.decode() for line in data.split(b"\n") if line])
    if data:
        flipped.append(len(data) // 2 if len(data) < 100 else 1000)
        with pytest.raises((OSError, ValueError)):
            list(read_lines(path))


def test_a_list_is_checked_however_it_is_read(gcs, flipped):
    path = gcs.put("list.txt", TEXT)
    flipped.append(5)
    for size in (1 << 16, 1 << 20, -1):
        with storage.open_input(path) as file, pytest.raises(OSError, match="checksum"):
            file.read(4)
            file.seek(0)
            while file.read(size):
                pass


def test_a_small_parquet_is_checked_as_a_whole(gcs, flipped):
    buffer = io.BytesIO()
    uris = [f"{n:07}.jpg" for n in range(20_000)]
    pq.write_table(pa.table({"uri": uris}), buffer, use_dictionary=False)
    data = buffer.getvalue()
    assert 50_000 < len(data) < 500_000
    footers.forget()
    path = gcs.put("list.parquet", data)
    gcs.server.forget()
    for _ in range(2):
        with open_parquet(path) as file:
            assert [uri for batch in file.iter_batches(4096) for uri in batch["uri"].to_pylist()] == uris
    assert gcs.server.count("GET") == 2 + 2, "its size each time, its footer, and all of it"
    path = gcs.put("other.parquet", data)
    flipped.append(30_000)
    with open_parquet(path) as file:  # the footer alone is not
        assert file.metadata.num_rows == len(uris)
    with pytest.raises(OSError, match="checksum"), open_parquet(path) as file:
        list(file.iter_batches(4096))


def test_parts_are_read_without_a_checksum(gcs):
    path = gcs.put("list.txt", TEXT)
    with storage.open_input(path) as file:
        assert storage.read_range(file, 100, 50) == TEXT[100:150]
        assert storage.read_range(file, 10, 50) == TEXT[10:60]
        file.seek(-10, 2)
        assert file.read() == TEXT[-10:]


def test_an_object_that_is_stored_as_gzip_and_said_to_be_so(gcs):
    """The object is served as stored, so its checksum covers the stored bytes."""
    from beamlabel.transforms.storage import gcs_client

    blob = gcs_client.bucket(gcs.bucket).blob("list.txt")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(b"a.jpg\nb.jpg"), content_type="text/plain")
    assert list(read_lines(gcs.uri("list.txt"))) == ["a.jpg", "b.jpg"]
