"""Decodes bytes to pixels, in this process or in a child process with limits."""
