"""First-party buffers."""
