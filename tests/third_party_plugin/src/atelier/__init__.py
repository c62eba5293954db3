"""A plugin of every kind; the options are in conf/, and each names its class by its module."""
