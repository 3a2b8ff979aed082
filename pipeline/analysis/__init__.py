"""Result files to what they say, in four rooms that each import those before: rows, statistics, figures, page."""
