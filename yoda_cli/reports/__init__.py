"""What is shown of a run: pages, maps, films, the state of this machine. Computes nothing."""
