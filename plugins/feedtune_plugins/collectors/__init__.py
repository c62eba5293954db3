"""First-party collectors."""
