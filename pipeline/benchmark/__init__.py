"""Generation throughput, measured against what the device allows."""
