"""Fixtures of this directory."""

import pytest

from support.http_site import Site


@pytest.fixture
def site(http_site: Site) -> Site:
    """An HTTP server whose answers the test sets."""
    return http_site
