"""A module's handle → its files, whole and fingerprinted, in a local folder; the launcher's side."""
