"""What the outputs of earlier runs say of the images of this one."""
