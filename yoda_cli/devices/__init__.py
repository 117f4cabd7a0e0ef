"""Which device and precision to compute in, and what to do when memory runs out."""
