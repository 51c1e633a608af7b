"""Writes ``tests/data/corpus.tar.xz``: small images of every variant that is decoded, and their right pixels."""
