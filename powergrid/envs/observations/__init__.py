"""What agents see: channels as a table, views of them, and what outages and feeders as graphs add."""
