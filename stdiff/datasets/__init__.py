"""Raw public collections, read into case tables and split without a leak."""

import cv2

# Images are worked on side by side in processes of their own. OpenCV's threads would add nothing to
# that, and those that a process has started are missing in the ones forked from it, which then wait
# for them for ever.
cv2.setNumThreads(1)
