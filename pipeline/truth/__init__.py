"""The classes that people gave to images: read from files, columns and folders, and matched with rows."""
