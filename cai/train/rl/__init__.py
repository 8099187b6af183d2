"""What the reinforcement learning methods share: rewards, rollouts, PPO."""
