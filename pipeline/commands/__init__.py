"""`python -m pipeline COMMAND`: a module a command."""
