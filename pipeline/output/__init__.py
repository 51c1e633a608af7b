"""The output directory of a run: staging, lock, manifest, publishing, verification."""
