"""Listings from a server that repeats the same page."""

import json

import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.storage.buckets import azure_ranges
from support.servers import FileServer, Reply


@pytest.mark.parametrize("tokens", [["again"], ["a", "b", "a", "b"]])
def test_gcs(gcs, monkeypatch, tokens):
    gcs.put("x/a.jpg", b"1")
    real, asked = gcs.server._serve, []

    def serve(handler, request, body):
        status, headers, content = real(handler, request, body)
        if request.path.endswith("/o"):
            asked.append(request)
            token = tokens[min(len(asked), len(tokens)) - 1]
            content = json.dumps({**json.loads(content), "nextPageToken": token}).encode()
        return status, headers, content

    monkeypatch.setattr(gcs.server, "_serve", serve)
    for listing in (
        storage.entries(gcs.uri("x")),
        storage.match(gcs.uri("x/*.jpg")),
        storage.match(gcs.uri("x/")),
    ):
        asked.clear()
        with pytest.raises(OSError, match="repeats a page token"):
            list(listing)
        assert len(asked) <= 4


def test_s3(s3, monkeypatch):
    s3.put("x/a.jpg", b"1")
    real, asked = s3.server._serve, []

    def serve(handler, request, body):
        at, mark, rest = handler.path.partition("continuation-token=again")
        handler.path = at + rest.lstrip("&") if mark else handler.path
        status, headers, content = real(handler, request, body)
        if b"</ListBucketResult>" in content:
            asked.append(request)
            token = b"<NextContinuationToken>again</NextContinuationToken></ListBucketResult>"
            content = content.replace(b"</ListBucketResult>", token)
            content = content.replace(b"<IsTruncated>false", b"<IsTruncated>true")
        return status, headers, content

    monkeypatch.setattr(s3.server, "_serve", serve)
    for listing in (
        storage.entries(s3.uri("x")),
        storage.match(s3.uri("x/*.jpg")),
        storage.match(s3.uri("x/")),
    ):
        asked.clear()
        with pytest.raises(OSError, match="repeats a page token"):
            list(listing)
        assert len(asked) <= 4


PAGE = b"""<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="photos"><Blobs><Blob>
<Name>x/a.jpg</Name><Properties><Last-Modified>Tue, 01 Jan 2030 00:00:00 GMT</Last-Modified><Etag>0x1</Etag>
<Content-Length>1</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob></Blobs>
<NextMarker>again</NextMarker></EnumerationResults>"""


def test_azure(monkeypatch):
    pytest.importorskip("azure.storage.blob")
    server = FileServer()
    account = f"DefaultEndpointsProtocol=http;AccountName=someone;AccountKey=a2V5;BlobEndpoint={server.url}/someone;"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", account)
    monkeypatch.setattr(azure_ranges, "_current", None)
    server.files["/someone/photos"] = Reply(body=PAGE, headers={"Content-Type": "application/xml"})
    try:
        for listing in (
            storage.entries("azfs://someone/photos/x"),
            storage.match("azfs://someone/photos/x/*.jpg"),
            storage.match("azfs://someone/photos/x/"),
        ):
            server.requests.clear()
            with pytest.raises(OSError, match="repeats a page token"):
                list(listing)
            assert 2 <= len(server.requests) <= 4
    finally:
        server.close()
