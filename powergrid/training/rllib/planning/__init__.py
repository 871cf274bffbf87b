"""What is settled before anything is built: the environment, its facts, who has which policy, what does not go."""
