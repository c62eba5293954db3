"""Asking services over HTTP: one way for every plugin that does."""
