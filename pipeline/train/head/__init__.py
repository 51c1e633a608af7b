"""Logistic regression on embeddings."""
