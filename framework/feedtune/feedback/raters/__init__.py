"""Raters that are programs: simulated ones, and the client that answers over HTTP."""
