"""--precision int8: quantizes the module with images of the input."""
