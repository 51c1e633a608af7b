"""Which operations a module may hold: its files are read as data, before anything of them is loaded; no TensorFlow."""
