"""From a picture to a larger one: resolve what was asked, plan, run, write. Knows no command line.

The face hands out nothing: ``checks`` must be had without torch. Callers import the module they
mean: ``settings`` (what a run does), ``pipeline`` (tensor to tensor), ``picture`` (disk to disk),
``api`` (for Python), ``batch`` (folders).
"""
