"""What the rows say: fronts, speed at equal quality and cost, the order of block lengths, scaling fits."""
