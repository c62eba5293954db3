"""Scripts here are run by hand, beside packages that the tests do not install; what needs none is tested."""

from pathlib import Path

TESTED = {"fits.py", "floor.py", "tables.py"}  # their doctests
collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("*.py")
    if path.name not in TESTED and not path.name.startswith("test_")
]
