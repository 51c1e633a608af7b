"""References served over HTTP, every fifth of which fails for a known reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from support import attacks
from support.servers import FileServer, Reply

EVERY = 5
# Transient server errors: every n-th image is first answered with 503 and must still get its row.
_TRANSIENT_EVERY = 50

# The content that is served in place of a photograph, by the reason of its failure.
_SERVED: dict[str, Callable[[bytes], Reply]] = {
    "not_found": lambda _: Reply(status=404),
    "truncated": lambda content: Reply(body=content[: len(content) // 2]),
    "empty_file": lambda _: Reply(body=b""),
    "not_an_image": lambda _: Reply(body=b"<!DOCTYPE html><title>Gone</title>"),
    "forbidden": lambda _: Reply(status=403),
    "too_many_pixels": lambda _: Reply(body=attacks.png(60_000, 60_000, 8, 2)),
}
# References that lead to no request.
_NOT_SERVED = {"unsupported_scheme": "gopher://127.0.0.1/{}", "invalid_uri": "http://[{}"}
HANGS = "inference_timeout"
REASONS = (*_SERVED, *_NOT_SERVED)


class FaultyReferences:
    """A number of references, 20 % of them faulty.

    Args:
      server: The server of the images.
      photos: The files that are served in turn.
      count: The number of references.
      hanging: An image for which the module never ends, served for two references; none by default.

    Attributes:
      uris: The references in the order of the input.
      reasons: The reason of each reference; None if it gets a row.
    """

    def __init__(
        self, server: FileServer, photos: Sequence[Path], count: int, hanging: bytes | None = None
    ) -> None:
        self._server = server
        at = {count // 3, 2 * count // 3} if hanging else set()
        self.uris: list[str] = []
        self.reasons: list[str | None] = []
        self._replies: dict[str, Reply] = {}
        self._hanging: list[str] = []
        contents = [path.read_bytes() for path in photos]
        for number in range(count):
            reason = REASONS[number // EVERY % len(REASONS)] if number % EVERY == EVERY - 2 else None
            path = f"/{number:06d}{photos[0].suffix}"
            content = contents[number % len(contents)]
            if number in at:
                reason, content = HANGS, hanging or b""
            if reason in _NOT_SERVED:
                self.uris.append(_NOT_SERVED[reason].format(number))
            else:
                self.uris.append(server.url_of(path))
                once = int(number % _TRANSIENT_EVERY == 0)
                good = Reply(body=content, fail_first=once)
                self._replies[path] = good if reason in (None, HANGS) else _SERVED[reason](content)
            self.reasons.append(reason)
            if reason == HANGS:
                self._hanging.append(path)

    @property
    def served(self) -> int:
        """The number of references that lead to a request."""
        return len(self._replies)

    def serve(self, delay: float = 0.0, *, hanging: bool = True) -> None:
        """Serves the references with a delay, and clears the recorded requests.

        Args:
          delay: The delay of each answer in seconds.
          hanging: Whether the images for which the module never ends are served, too.
        """
        self._server.reset()
        for path, reply in self._replies.items():
            self._server.files[path] = dataclasses.replace(reply, delay=delay)
        if not hanging:
            for path in self._hanging:
                del self._server.files[path]

    def asked(self) -> int:
        """The number of references that were requested, each counted once."""
        return len({request.path for request in list(self._server.requests)} & self._replies.keys())
