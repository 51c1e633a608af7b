"""An artifact → answers; the worker's side."""
