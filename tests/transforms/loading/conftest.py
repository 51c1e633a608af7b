"""Fixtures of this folder."""

from collections.abc import Iterator

import pytest

from support.http_site import Site, serving


@pytest.fixture
def site() -> Iterator[Site]:
    """An HTTP server that answers what it is told."""
    with serving() as site:
        yield site
