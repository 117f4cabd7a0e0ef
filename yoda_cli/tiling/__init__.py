"""Where the network runs: windows, partitions, plans and their cost.

Pure: knows no network and no file.
"""
