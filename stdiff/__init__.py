"""stdiff: mask- and BI-RADS-conditioned latent diffusion for breast ultrasound.

Everything it generates is synthetic: for research and teaching, not for diagnosis.
"""
