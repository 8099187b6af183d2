"""Reward models: training, evaluation, and scoring with a trained one."""
