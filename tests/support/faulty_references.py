"""References to photographs as files and URLs of a test server, some with a fault of known outcome.

A reference names a file below one of many links to its directory, or below one of many directories of a server. So a
few hundred photographs make any number of different references.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from beamlabel.transforms.decoding.picture.jpeg_header import MAX_SCANS
from beamlabel.transforms.records import Reason
from support import attacks
from support.images import claiming, encode, flip, photo, png
from support.servers import Handler, Running

MAX_BYTES = 2 << 20
"""The value of ``--max_bytes`` that the job needs."""

# A stalled server is silent for this time or until the client hangs up. It exceeds every deadline of these runs.
_STALL_SECONDS = 120.0
# The share of requests to the server among all good images.
_WEB_SHARE = 0.4


@dataclass(frozen=True)
class Reference:
    """A line of the list.

    Attributes:
      line: The line without its line end.
      fault: The name of the fault; empty for none.
      reason: The expected reason; None if the reference must get the row of its photograph.
      photo: The index of the photograph, from 0.
    """

    line: bytes
    fault: str = ""
    reason: Reason | None = None
    photo: int | None = None


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
      name: The name in the references; for ``answer`` and ``content`` a part of the URL or path.
      reason: See ``Reference``.
      weight: The relative frequency among all faults.
      where: ``content``: in the content of a file, also behind URLs; ``file``: in the file's location; ``line``: in the
        reference itself; ``answer``: in the server's answer.
      is_slow: Whether the fault costs a deadline or several tries.
    """

    name: str
    reason: Reason | None
    where: str
    weight: float = 1.0
    is_slow: bool = False


_SELDOM = 0.03
FAULTS = (
    Fault("empty.jpg", Reason.EMPTY_FILE, "content"),
    Fault("cut.jpg", Reason.TRUNCATED, "content"),
    Fault("cut.png", Reason.TRUNCATED, "content"),
    Fault("cut.webp", Reason.TRUNCATED, "content"),
    Fault("cut.gif", Reason.TRUNCATED, "content"),
    Fault("flipped.png", Reason.CORRUPT, "content"),
    Fault("scans.jpg", Reason.CORRUPT, "content"),
    Fault("page.jpg", Reason.NOT_AN_IMAGE, "content"),
    Fault("words.png", Reason.NOT_AN_IMAGE, "content"),
    Fault("drawing.jpg", Reason.UNSUPPORTED_FORMAT, "content"),
    Fault("float.tif", Reason.UNSUPPORTED_FORMAT, "content"),
    Fault("huge.jpg", Reason.TOO_MANY_PIXELS, "content"),
    Fault("huge.png", Reason.TOO_MANY_PIXELS, "content"),
    Fault("large.jpg", Reason.TOO_MANY_BYTES, "content"),
    Fault("slow.jpg", Reason.DECODE_TIMEOUT, "content", _SELDOM, is_slow=True),
    Fault("missing.jpg", Reason.NOT_FOUND, "file"),
    Fault("directory.jpg", Reason.NOT_A_FILE, "file"),
    Fault("pipe.jpg", Reason.NOT_A_FILE, "file"),
    Fault("loop.jpg", Reason.NOT_FOUND, "file"),
    Fault("not_utf8", Reason.INVALID_URI, "line"),
    Fault("data_uri", Reason.UNSUPPORTED_SCHEME, "line"),
    Fault("blank_before", Reason.INVALID_URI, "line"),
    Fault("too_long", Reason.URI_TOO_LONG, "line", 0.1),
    Fault("404", Reason.NOT_FOUND, "answer"),
    Fault("410", Reason.NOT_FOUND, "answer"),
    Fault("403", Reason.FORBIDDEN, "answer"),
    Fault("500", Reason.FETCH_ERROR, "answer", 0.5, is_slow=True),
    Fault("503-once", None, "answer", 2),
    Fault("short-once", None, "answer", 2),
    Fault("hang-up-once", None, "answer", 2),
    Fault("short", Reason.FETCH_ERROR, "answer", 0.5, is_slow=True),
    Fault("hang-up", Reason.FETCH_ERROR, "answer", 0.5, is_slow=True),
    Fault("too-much", Reason.TOO_MANY_BYTES, "answer"),
    Fault("without-end", Reason.TOO_MANY_BYTES, "answer"),
    Fault("stall", Reason.TIMEOUT, "answer", 0.1, is_slow=True),
    Fault("drip", Reason.TIMEOUT, "answer", 0.1, is_slow=True),
)


def faulty_contents(*, slow: bool) -> dict[str, bytes]:
    """The content of the files of the ``content`` faults by file name."""
    image = photo(400, 300)
    jpeg, lossless = encode(image, "JPEG"), encode(image, "PNG")
    found = {
        "empty.jpg": b"",
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": lossless[: len(lossless) // 2],
        "cut.webp": encode(image, "WEBP")[:-2000],
        "cut.gif": encode(image, "GIF")[:-2000],
        "flipped.png": flip(lossless, len(lossless) // 2),
        "scans.jpg": attacks.jpeg(640, 480, MAX_SCANS + 1),
        "page.jpg": b"<!DOCTYPE html>\n<html><body>Not here any more.</body></html>\n",
        "words.png": b"These are words, and no picture.\n" * 20,
        "drawing.jpg": b'<svg xmlns="http://www.w3.org/2000/svg"/>\n',
        "float.tif": encode(image.convert("F"), "TIFF"),
        "huge.jpg": claiming(jpeg, 30000, 30000),
        "huge.png": png(30000, 30000, 8, 2, b""),
        "large.jpg": jpeg + bytes(MAX_BYTES + 1 - len(jpeg)),
    }
    return found | ({"slow.jpg": attacks.endlessly_refined_jpeg(10_000, 10_000)} if slow else {})


class FaultyServer(Running):
    """Serves ``/PLACE/ANSWER/NAME``: a file, answered as ``ANSWER`` describes (see ``FAULTS``).

    Args:
      contents: The content of the files by name.

    Attributes:
      requests: The number of requests so far.
      allowed: The number of requests that are answered.
    """

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.requests = 0
        self.allowed: float = math.inf
        self._asked: set[str] = set()
        self._lock = threading.Condition()
        server = self

        class _Answer(Handler):
            def do_GET(self) -> None:  # noqa: N802
                _, _, answer, name = self.path.split("/")
                server._answer(self, answer, contents.get(name, b""))

        super().__init__(_Answer)

    def url_of(self, place: int, answer: str, name: str) -> str:
        """The URL of a file; URLs with different places are different images for the job."""
        return f"{self.url}/{place}/{answer}/{quote(name)}"

    def allow(self, requests: float) -> None:
        """Answers this number of requests; later ones wait until more are allowed."""
        with self._lock:
            self.allowed = requests
            self._lock.notify_all()

    def _is_first(self, path: str) -> bool:
        with self._lock:
            self.requests += 1
            number = self.requests
            is_first = path not in self._asked
            self._asked.add(path)
            self._lock.wait_for(lambda: number <= self.allowed)
        return is_first

    def _answer(self, handler: Handler, answer: str, body: bytes) -> None:
        is_first = self._is_first(handler.path)
        if answer.endswith("-once"):
            answer = answer.removesuffix("-once") if is_first else "ok"
        if answer == "hang-up":
            handler.close_connection = True
        elif answer == "stall":
            handler.connection.settimeout(_STALL_SECONDS)
            handler.connection.recv(1)  # until the client hangs up
            handler.close_connection = True
        elif answer.isdecimal():
            _send(handler, int(answer), b"no")
        elif answer == "drip":
            _drip(handler, body)
        elif answer == "short":
            _send(handler, 200, body[: len(body) // 2], claims=len(body))
        elif answer == "too-much":
            _send(handler, 200, b"", claims=MAX_BYTES + 1)
        elif answer == "without-end":
            _send(handler, 200, body + bytes(2 * MAX_BYTES), claims=None)
        else:
            _send(handler, 200, body)


def _send(handler: Handler, status: int, body: bytes, claims: int | None = -1) -> None:
    """Answers with a body; ``claims`` is a false length, or None to end the body by closing the connection."""
    handler.send_response(status)
    if claims is not None:
        handler.send_header("Content-Length", str(len(body) if claims < 0 else claims))
    if claims != -1:
        handler.send_header("Connection", "close")
        handler.close_connection = True
    handler.end_headers()
    handler.wfile.write(body)


def _drip(handler: Handler, body: bytes) -> None:
    """Sends a byte at a time with short pauses until the client hangs up."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    end = time.monotonic() + _STALL_SECONDS
    for byte in body:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if time.monotonic() > end:
            return
        time.sleep(0.2)


class References:
    """Draws references; the photographs are copied into one directory beside the faulty files.

    Args:
      directory: The new directory for the files.
      photos: The photographs, all different.
      slow: Whether to include faults that cost a deadline or several tries.

    Attributes:
      photos: Their copies in the same order.
      server: The server of all URLs except those of slow faults.
    """

    def __init__(self, directory: Path, photos: Sequence[Path], *, slow: bool) -> None:
        self._directory = directory
        self._files = directory / "files"
        self._files.mkdir(parents=True)
        faulty = faulty_contents(slow=slow)
        contents = {f"{number:04d}{path.suffix}": path.read_bytes() for number, path in enumerate(photos)}
        for name, data in (contents | faulty).items():
            (self._files / name).write_bytes(data)
        (self._files / "directory.jpg").mkdir()
        os.mkfifo(self._files / "pipe.jpg")
        (self._files / "loop.jpg").symlink_to("loop.jpg")
        self._names = list(contents)
        self.photos = [self._files / name for name in self._names]
        self._faults = [fault for fault in FAULTS if slow or not fault.is_slow]
        self.server, self._slow = FaultyServer(contents | faulty), FaultyServer(contents)
        self._places: Counter[str] = Counter()

    @property
    def requests(self) -> int:
        """The number of requests that the servers got."""
        return self.server.requests + self._slow.requests

    def close(self) -> None:
        self.server.close()
        self._slow.close()

    def draw(self, count: int, fault_share: float, rng: random.Random) -> list[Reference]:
        """Different references in random order; each fault occurs at least once if the share suffices."""
        faulty = round(count * fault_share)
        faults = [*self._faults[:faulty]]
        faults += rng.choices(self._faults, [one.weight for one in self._faults], k=faulty - len(faults))
        self._places.clear()
        drawn = [self._faulty(fault, rng) for fault in faults]
        drawn += [self._good(rng) for _ in range(count - faulty)]
        rng.shuffle(drawn)
        return drawn

    def _good(self, rng: random.Random) -> Reference:
        number = rng.randrange(len(self._names))
        name = self._names[number]
        line = self._url("ok", name) if rng.random() < _WEB_SHARE else self._path(name)
        return Reference(line, photo=number)

    def _faulty(self, fault: Fault, rng: random.Random) -> Reference:
        if fault.where == "answer":
            number = rng.randrange(len(self._names))
            line = self._url(fault.name, self._names[number], is_slow=fault.is_slow)
            return Reference(line, fault.name, fault.reason, None if fault.reason else number)
        if fault.where == "line":
            return Reference(self._odd_line(fault.name), fault.name, fault.reason)
        is_url = fault.where == "content" and rng.random() < _WEB_SHARE
        line = self._url("ok", fault.name) if is_url else self._path(fault.name)
        return Reference(line, fault.name, fault.reason)

    def _place(self, what: str) -> int:
        self._places[what] += 1
        return self._places[what]

    def _path(self, name: str) -> bytes:
        """A path of the file below a link to its directory."""
        place = self._directory / f"place-{self._place(name)}"
        if not place.exists():
            place.symlink_to(self._files)
        return os.fsencode(place / name)

    def _url(self, answer: str, name: str, *, is_slow: bool = False) -> bytes:
        """Slow faults get a host of their own, since the number of concurrent requests per host is limited."""
        server = self._slow if is_slow else self.server
        return server.url_of(self._place(f"{answer}/{name}"), answer, name).encode()

    def _odd_line(self, fault: str) -> bytes:
        number = self._place(fault)
        lines: dict[str, Callable[[], bytes]] = {
            "not_utf8": lambda: os.fsencode(self._files) + b"/caf\xe9-%d.jpg" % number,
            "data_uri": lambda: b"data:image/png;base64,iVBORw0KGgo%08d" % number,
            "blank_before": lambda: b" " + os.fsencode(self._files / f"{number}.jpg"),
            "too_long": lambda: b"https://example.org/%d/" % number + b"x" * (64 << 10),
        }
        return lines[fault]()
