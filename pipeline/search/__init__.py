"""Allocation search: Optuna over layers, widths, block length and the like, for block transformers."""
