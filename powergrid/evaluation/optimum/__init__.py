"""The best that could have been done on a day, known from its end."""
