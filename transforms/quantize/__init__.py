"""Turns a compiled module into the fastest int8 model with matching answers; only the launcher's side uses NNCF."""
