"""yoda: masked diffusion super-resolution. Importing this package imports nothing heavy."""

__version__ = "0.1.0"
