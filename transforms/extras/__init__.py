"""Instructions in messages to install an extra."""
