"""Which operations a module may hold: its files, read as data, before anything of them is loaded. Without TensorFlow."""
