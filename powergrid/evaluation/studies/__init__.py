"""What a planner signs: many recorded days summed up, compared and reported; it plays nothing itself."""
