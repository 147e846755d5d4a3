"""Streams frames through a bundle, in the order of the files: source → stages → denoiser → sink."""
