"""feedtune tunes language models with feedback by reinforcement learning."""
