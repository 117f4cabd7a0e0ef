"""The method: schedules, samplers, noise and masked reverse diffusion.

Pure: knows no network, no tile, no file and no screen. The face hands out nothing: the table of
samplers must be had without NumPy. Callers import the module they mean, ``yoda`` first.
"""
