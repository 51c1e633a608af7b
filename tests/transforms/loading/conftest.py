"""Fixtures of this folder."""

import pytest

from support.http_site import Site


@pytest.fixture
def site(http_site: Site) -> Site:
    """An HTTP server that answers what it is told."""
    return http_site
