"""Searches with Optuna: layers, widths and the like of block transformers, and the recipes of models."""
