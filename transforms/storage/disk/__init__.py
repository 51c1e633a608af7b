"""Files of the local disk: what is one."""
