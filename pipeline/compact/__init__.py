"""Compacts many outputs into one with the current rows."""
