"""Text and tokens: tokenizers, chat templates, the rows of a task, and the codec over all of them."""
