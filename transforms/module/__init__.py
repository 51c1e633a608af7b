"""Compiles a hub module to an artifact: the launcher's side, and the only one that uses TensorFlow."""
