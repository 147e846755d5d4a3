"""The small network that the demo shows: footage, styles, how it is trained, and how good it is."""
