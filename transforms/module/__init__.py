"""A hub module → an artifact; the launcher's side, the only one with TensorFlow."""
