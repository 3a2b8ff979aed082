"""The report's figures, each drawn where the results hold data for it."""
