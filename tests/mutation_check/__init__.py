"""The parts of `tests/mutation.py`: what is changed, how it is put in place, who is to notice."""
