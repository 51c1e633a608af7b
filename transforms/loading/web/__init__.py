"""Whom on the web images are asked of, and how: URLs, addresses, turns, headers, and what servers forbid."""
