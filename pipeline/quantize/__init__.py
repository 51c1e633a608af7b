"""--precision int8: images of the input → the module in int8."""
