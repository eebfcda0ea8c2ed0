"""What is burnt into a frame: found, cropped away, or painted over."""
