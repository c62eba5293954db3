"""The page on which people give feedback, and the JSON API under it (extra `feedback`)."""
