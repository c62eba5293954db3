"""What is here is run by hand, beside packages that the tests do not install."""

collect_ignore = ["compare_trl.py"]
