"""The method: schedules, samplers, noise and masked reverse diffusion.

Pure: knows no network, no file and no screen.
"""
