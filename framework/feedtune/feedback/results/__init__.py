"""What all the answers say: agreement between raters, and a leaderboard of runs."""
