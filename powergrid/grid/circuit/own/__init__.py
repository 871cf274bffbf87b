"""What a feeder's model does by itself: its controls, and its batteries, fuel and machines that remember."""
