"""Listings of buckets, by ranges of names that are listed at the same time."""
