"""The study's stages as jobs of a SLURM cluster: submitted once, nothing needs to stay alive for them."""
