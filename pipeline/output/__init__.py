"""A run's folder: staging, lock, manifest, publishing, verification."""
