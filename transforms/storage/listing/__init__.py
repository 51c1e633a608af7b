"""Listings of buckets, in ranges of names that are listed in parallel."""
