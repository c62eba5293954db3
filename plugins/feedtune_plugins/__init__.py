"""The plugins that feedtune ships. They use its public API only, as anybody's would."""
