"""How messages say to install what an extra brings."""
