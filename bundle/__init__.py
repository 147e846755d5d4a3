"""The contract everyone shares: what a bundle holds and what a stream computes. Needs numpy, nothing else."""
