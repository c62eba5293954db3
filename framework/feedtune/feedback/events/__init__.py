"""What happened to responses that were shown: clicks, rankings, and what they tell."""
