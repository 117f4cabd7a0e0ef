"""DiffBIR's parts around its diffusion: restorers, autoencoder, text states, windows of latents."""
