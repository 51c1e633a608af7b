"""A compiled module → the fastest model in int8 that answers as it; the launcher's side, the only one with NNCF."""
