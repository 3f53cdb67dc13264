"""Proof of what answers depend on: the tiles that were asked for, and nothing else."""
