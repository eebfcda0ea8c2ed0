"""stdiff: mask- and BI-RADS-conditioned latent diffusion for breast ultrasound.

Everything it generates is synthetic: for research and teaching, not for diagnosis.
"""

import os

# Both are read when the libraries are loaded, so they are set before anything else is imported.
# Nothing is fetched unless a configuration names it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Threads of OpenMP wait for each other by spinning. With another process on the same cores that
# slows training down; after a short spin they sleep (measured by bench/threads.py).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
