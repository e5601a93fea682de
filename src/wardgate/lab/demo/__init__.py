"""`make demo`: the main job end to end, told as a story by real processes in the lab."""
