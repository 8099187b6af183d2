"""Probes for reward hacking. Each file tests for one way to game a reward, a data set, a judge or a policy."""
