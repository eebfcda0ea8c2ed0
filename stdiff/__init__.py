"""stdiff: mask- and BI-RADS-conditioned latent diffusion for breast ultrasound.

Everything it generates is synthetic: for research and teaching, not for diagnosis.
"""

import os

# Nothing is fetched unless a configuration names it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
