"""ST-Diff: the latent diffusion model, made of standard diffusers parts, and its folder on disk."""
