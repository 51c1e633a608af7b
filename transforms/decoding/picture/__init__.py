"""Shared by all readers: options and result, headers, color profiles, modes, and the list of variants."""
