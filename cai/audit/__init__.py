"""Probes for reward hacking: each file looks for one way in which a reward, a data set or a policy can be gamed.

Left out on purpose: opening models and files, which is `auditing`'s; a probe is a pure function of what it is given.
"""
