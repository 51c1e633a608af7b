"""moto's S3 server on the loopback interface, behind a proxy that counts requests and injects faults."""

from __future__ import annotations

import logging
import threading

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

from support.gcs_proxy import Answer, GcsProxy
from support.servers import Handler, Received

KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""The environment of a client; without the last it would look for a machine's role on the network."""

_CODES = {403: "AccessDenied", 404: "NoSuchKey", 503: "SlowDown"}


class S3Server(GcsProxy):
    """moto's server in threads of this process; it runs from construction to ``close``.

    Attributes:
        client: boto3's client, which bypasses the proxy.
    """

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        # moto checks whether an object exists and then writes it. No other write may come between.
        self._writing = threading.Lock()
        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        address = self._moto.get_host_and_port()
        self.client = boto3.client(
            "s3",
            endpoint_url="http://{}:{}".format(*address),
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(max_pool_connections=32),
        )
        super().__init__(address)

    def close(self) -> None:
        super().close()
        self._moto.stop()

    def _serve(self, handler: Handler, request: Received, body: bytes) -> Answer:
        if request.method in ("GET", "HEAD"):
            return super()._serve(handler, request, body)
        with self._writing:
            return super()._serve(handler, request, body)

    def _injected(self, status: int) -> bytes:
        code = _CODES.get(status, "InternalError" if status >= 500 else "InvalidRequest")
        return (
            f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the test</Message></Error>".encode()
        )


class S3Bucket:
    """A fresh, empty bucket on an ``S3Server`` with helpers that bypass the code under test."""

    def __init__(self, server: S3Server, name: str) -> None:
        server.forget()
        server.client.create_bucket(Bucket=name)
        self.server = server
        self.bucket = name
        self.url = f"s3://{name}"

    def uri(self, name: str) -> str:
        return f"{self.url}/{name}"

    shown = uri

    def put(self, name: str, data: bytes) -> str:
        """Stores an object and returns its URI."""
        self.server.client.put_object(Bucket=self.bucket, Key=name, Body=data)
        return self.uri(name)

    def get(self, name: str) -> bytes:
        """The bytes of an object on the server."""
        return self.server.client.get_object(Bucket=self.bucket, Key=name)["Body"].read()

    def etag(self, name: str) -> str:
        """The ETag of an object."""
        return self.server.client.head_object(Bucket=self.bucket, Key=name)["ETag"].strip('"')

    def list(self, prefix: str = "") -> list[str]:
        """The names of all objects that begin with ``prefix``, sorted."""
        pages = self.server.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))
