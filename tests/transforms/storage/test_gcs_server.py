"""The test server for GCS survives clients that the tests kill."""

import socket
from urllib.parse import urlsplit
from urllib.request import urlopen


def test_an_upload_whose_client_is_killed_holds_up_nobody(gcs):
    gcs.put("there.txt", b"there")
    address = urlsplit(gcs.server.url)
    head = (
        f"POST /upload/storage/v1/b/{gcs.bucket}/o?uploadType=media&name=half.txt HTTP/1.1\r\n"
        f"Host: {address.netloc}\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(head.encode() + b"the first of it")
    for name, status in (("there.txt", 200), ("half.txt", 404)):
        url = f"{gcs.server.url}/storage/v1/b/{gcs.bucket}/o/{name}"
        try:
            with urlopen(url, timeout=60) as answer:
                assert answer.status == status
        except OSError as error:
            assert getattr(error, "code", None) == status
