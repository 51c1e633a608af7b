"""Credentials: what they are called, and how they are taken out of texts before these leave the process."""
