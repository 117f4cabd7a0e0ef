"""From a picture to a larger one: resolve, plan, run, write. Knows no command line."""
