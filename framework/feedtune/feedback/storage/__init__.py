"""The store: one SQLite file, its texts encrypted if asked for."""
