"""References → bytes."""
