"""Writes ``tests/data/corpus.tar.xz``: small images of every decoded variant, and their correct pixels."""
