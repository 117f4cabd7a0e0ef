"""Network definitions, each with the published names of its tensors. Knows no diffusion."""
