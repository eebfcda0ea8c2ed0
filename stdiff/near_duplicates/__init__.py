"""Images of one scene: near-duplicates of a frame, and crops cut out of one."""
