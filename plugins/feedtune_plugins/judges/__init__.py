"""First-party judges: language models that answer questions, wherever they run."""
