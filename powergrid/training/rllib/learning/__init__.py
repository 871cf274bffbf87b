"""What is made of sampled or given days beside PPO's own losses: limits, days that are alike, imitation."""
