"""ST-Diff: a latent diffusion model of standard diffusers classes, and its folder on disk."""
