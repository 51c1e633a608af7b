"""The tokens of the pages of a listing, none of which comes twice."""

from __future__ import annotations

import errno


class PageTokens:
    """Those that a listing has told so far.

    Args:
      place: what is listed, for errors.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._seen = set[str]()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, token: str | None) -> None:
        """Takes note of the token of the next page; None if there is none.

        Raises:
          OSError: it came before, so the listing would never end.
        """
        if token is None:
            return
        if token in self._seen:
            raise OSError(errno.EIO, "the listing repeats a page token, and would never end", self._place)
        self._seen.add(token)
