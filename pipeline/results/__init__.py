"""What stages and searches write: typed records, what a number was measured with, and whether all still fits."""
