"""`python -m pipeline COMMAND`: a module per command."""
