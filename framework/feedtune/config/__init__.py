"""Configuration: plugins are found, a config is composed and checked, and objects are built from it."""
