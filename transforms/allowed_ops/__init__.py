"""Checks which operations a module contains: reads its files as data before anything loads them, without TensorFlow."""
