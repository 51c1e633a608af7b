"""A module is loaded in a process of its own, which may take so long and so much memory."""
