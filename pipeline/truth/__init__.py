"""The truth: which class an image has, by a person or by the folder that it is in."""
