"""Access to web servers: URLs, addresses, admission, headers, and ``X-Robots-Tag``."""
