"""Replays recordings of the reference network and measures how far ours is from them."""
