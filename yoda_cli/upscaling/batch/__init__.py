"""Many pictures: which, to where, by which workers, and what was done. Knows no screen."""
