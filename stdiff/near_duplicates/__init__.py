"""Images of one scene: near-duplicates of a frame, and lesion crops cut out of it."""
