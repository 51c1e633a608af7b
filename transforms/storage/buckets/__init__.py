"""What object stores need beside files: content types, and many calls in one request."""
