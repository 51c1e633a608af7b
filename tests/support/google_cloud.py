"""A local Google Cloud for launchers: storage, credentials and Dataflow's job service."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.dataflow_v1beta3.types import Job

from support.gcs_server import GcsServer
from support.paths import ROOT
from support.servers import FileServer, Handler, Running

# Google's clients would otherwise ask the metadata server or the internet. Only the test's servers may be asked.
OFFLINE = """
import sys
def only_loopback(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host not in (None, "", "127.0.0.1", "::1", "localhost"):
        raise PermissionError(f"{event}: {host} is not this machine")
sys.addaudithook(only_loopback)
"""


def google_cloud(directory: Path, gcs_server: GcsServer, file_server: FileServer) -> dict[str, str]:
    """The environment of a launcher with a service account that can reach only these servers."""
    (directory / "offline").mkdir()
    (directory / "offline" / "sitecustomize.py").write_text(OFFLINE)
    file_server.reset()
    token = {"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}
    file_server.files["/token"] = json.dumps(token).encode()
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(directory / "offline"), str(ROOT)]),
        "STORAGE_EMULATOR_HOST": gcs_server.url,
        "GOOGLE_APPLICATION_CREDENTIALS": str(
            credentials(directory / "key.json", file_server.url_of("/token"))
        ),
    }


def credentials(path: Path, token_uri: str) -> Path:
    """A service account key in Google's format whose tokens come from a test server."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "a-project-1",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "launcher@a-project-1.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    path.write_text(json.dumps(account))
    return path


class JobService(Running):
    """The calls of Dataflow's REST API that a launcher makes, for one job that only has a state.

    Attributes:
      url: The value for ``--dataflow_endpoint``, on ``localhost``, for which Beam uses REST.
      created: Set when a job is created.
      state: The job's state, such as ``JOB_STATE_RUNNING``; a cancellation takes effect at once.
      message: The error that the service reports, if any.
      calls: Method and path of each call.
    """

    def __init__(self) -> None:
        self.created = threading.Event()
        self.state = "JOB_STATE_RUNNING"
        self.message = ""
        self.calls: list[tuple[str, str]] = []
        service = self

        class _Answer(Handler):
            def answer(self) -> None:
                content = json.dumps(service._answer(self.received(), self.read_body())).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = answer  # noqa: N815

        super().__init__(_Answer)
        self.url = self.url.replace("127.0.0.1", "localhost")

    def _answer(self, request: Any, body: bytes) -> dict[str, Any]:
        self.calls.append((request.method, request.path))
        if request.path.endswith("/messages"):
            message = {
                "time": "2026-01-02T03:04:05Z",
                "messageText": self.message,
                "messageImportance": "JOB_MESSAGE_ERROR",
            }
            return {"jobMessages": [message] if self.message else []}
        if request.path.endswith("/metrics"):
            return {}
        assert re.fullmatch(r"/v1b3/projects/a-project-1/locations/us-central1/jobs(/a-job)?", request.path)
        if request.method == "PUT":
            self.state = Job.from_json(body.decode()).requested_state.name
        if request.method == "POST":
            self.created.set()
            return {**json.loads(body), "id": "a-job", "currentState": "JOB_STATE_PENDING"}
        return {"id": "a-job", "currentState": self.state}
