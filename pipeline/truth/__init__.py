"""True classes of images, read from files, columns and directories, and matched with rows."""
