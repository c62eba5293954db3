"""N-grams: a table with one row for each of the last n-1 tokens.

Unembedding and heads are tables of their own, so Q-learning over this backbone is a Q-table, and a value
head is a table of values. Filled from counts it is the n-gram model (Shannon 1948, A Mathematical Theory of
Communication); with hashed rows it is the feature hashing of Weinberger et al. 2009 (arXiv:0902.2206).
"""

from __future__ import annotations

NOTHING = 0
"""Stands for a token before the row's first one; token i is symbol i + 1."""
