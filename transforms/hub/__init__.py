"""Resolves a module's handle to complete, fingerprinted files in a local directory; used by the launcher."""
