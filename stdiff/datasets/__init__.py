"""Raw public collections, read into case tables and split without a leak."""

import cv2

# Worker processes already run in parallel, so OpenCV's threads gain nothing. They also do not
# survive a fork, and the forked worker would wait for them for ever.
cv2.setNumThreads(1)
