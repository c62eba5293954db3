"""A run: assembled from its config, trained, exported into its folder."""
