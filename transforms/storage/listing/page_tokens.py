"""The page tokens of a listing, none of which may repeat."""

from __future__ import annotations

import errno


class PageTokens:
    """The page tokens of a listing so far.

    Args:
      place: path of the listing, for errors.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._seen = set[str]()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, token: str | None) -> None:
        """Adds the token of the next page; None if there is none.

        Raises:
          OSError: The token repeats, so the listing would never end.
        """
        if token is None:
            return
        if token in self._seen:
            raise OSError(errno.EIO, "the listing repeats a page token and would never end", self._place)
        self._seen.add(token)
