"""What is compared: a row per cell, from its records; a point per configuration, over its seeds."""
