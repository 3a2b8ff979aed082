"""What stages and searches write: typed records, the metrics declared on them, what they were measured with."""
