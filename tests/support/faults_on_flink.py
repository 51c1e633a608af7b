"""References of which every fifth is faulty in a way whose reason is known, served over HTTP."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from support import attacks
from support.servers import FileServer, Reply

EVERY = 5
# A server's bad moment: each so many images are answered with 503 first, and must get their rows all the same.
_TRANSIENT_EVERY = 50

# What is served in place of a photograph, by the reason with which that fails.
_SERVED: dict[str, Callable[[bytes], Reply]] = {
    "not_found": lambda _: Reply(status=404),
    "truncated": lambda content: Reply(body=content[: len(content) // 2]),
    "empty_file": lambda _: Reply(body=b""),
    "not_an_image": lambda _: Reply(body=b"<!DOCTYPE html><title>Gone</title>"),
    "forbidden": lambda _: Reply(status=403),
    "too_many_pixels": lambda _: Reply(body=attacks.png(60_000, 60_000, 8, 2)),
}
# References that nothing can be asked for.
_NOT_SERVED = {"unsupported_scheme": "gopher://127.0.0.1/{}", "invalid_uri": "http://[{}"}
HANGS = "inference_timeout"
REASONS = (*_SERVED, *_NOT_SERVED)


class FaultyReferences:
    """As many references as are asked for, 20 % of them faulty.

    Args:
      server: which serves the images.
      photos: the files that are served, again and again.
      count: of references.
      hanging: an image at which the module does not end, served for two of them; none by default.

    Attributes:
      uris: the references, in the order of the input.
      reasons: why each of them fails; None, if it gets a row.
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
        """How many of them the server is asked for."""
        return len(self._replies)

    def serve(self, delay: float = 0.0, *, hanging: bool = True) -> None:
        """Serves them from now on, each after so many seconds, and forgets what was asked for before.

        Args:
          delay: the seconds.
          hanging: whether those are served, too, at which the module does not end.
        """
        self._server.reset()
        for path, reply in self._replies.items():
            self._server.files[path] = dataclasses.replace(reply, delay=delay)
        if not hanging:
            for path in self._hanging:
                del self._server.files[path]

    def asked(self) -> int:
        """How many of them the server was asked for, each counted once."""
        return len({request.path for request in list(self._server.requests)} & self._replies.keys())
