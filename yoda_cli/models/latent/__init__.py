"""Families that restore a picture and then diffuse latents of Stable Diffusion: DiffBIR.

``family`` is what every family fills in, ``catalog`` the table of them, ``components`` what they
share. Knows no mask: ``upscaling.latent`` runs them.
"""
