"""Azurite, Microsoft's Azure Blob Storage server, on the loopback interface."""

from __future__ import annotations

import re
import subprocess
import threading
from typing import Any

from support import needs
from support.paths import ROOT

_PROGRAM = ROOT / ".runners" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
_ACCOUNT = "devstoreaccount1"
# Every Azurite has this key: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_LISTENS = re.compile(r"listens on (http://127\.0\.0\.1:\d+)")


class Azurite:
    """A server process that runs from construction to ``close``.

    Attributes:
        connection: The value for ``--azure_connection_string``.
        client: The client of Azure's library.
    """

    def __init__(self) -> None:
        if not _PROGRAM.is_file():
            needs.lacking("no Azurite; tools/setup_azurite.sh installs it")
        try:
            from azure.storage.blob import BlobServiceClient
        except ImportError:
            needs.lacking("the extra `azure` is not installed")

        command = [
            _PROGRAM,
            "--inMemoryPersistence",
            "--silent",
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            "0",
        ]
        command += ["--skipApiVersionCheck", "--disableTelemetry"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if found := _LISTENS.search(line):
                break
        else:
            raise RuntimeError(f"Azurite does not start: {said}")
        threading.Thread(target=self._process.stdout.read, daemon=True).start()
        self.connection = (
            f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};"
            f"BlobEndpoint={found[1]}/{_ACCOUNT};"
        )
        self.client: Any = BlobServiceClient.from_connection_string(self.connection)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class AzureContainer:
    """A fresh, empty container with helpers that bypass the code under test."""

    def __init__(self, server: Azurite, name: str) -> None:
        self._client = server.client.create_container(name)
        self.server = server
        self.url = f"azfs://{_ACCOUNT}/{name}"

    def uri(self, name: str) -> str:
        return f"{self.url}/{name}"

    shown = uri

    def put(self, name: str, data: bytes) -> str:
        """Stores a blob and returns its URI."""
        self._client.upload_blob(name, data, overwrite=True)
        return self.uri(name)

    def get(self, name: str) -> bytes:
        """The bytes of a blob on the server."""
        return self._client.download_blob(name).readall()

    def list(self, prefix: str = "") -> list[str]:
        """The names of all blobs that begin with ``prefix``, sorted."""
        return sorted(self._client.list_blob_names(name_starts_with=prefix))
