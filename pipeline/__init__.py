"""Scaling studies of vanilla and Block Transformers: quality against generation speed and memory."""
