"""What is good: named terms of every step, and their weighted sum."""
