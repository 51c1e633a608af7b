"""Recognition of regular files on the local disk."""
