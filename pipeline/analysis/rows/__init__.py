"""What is compared: a row a cell, from its records; a point a configuration, over its seeds."""
