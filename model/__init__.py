"""The causal UNet in PyTorch: diffusers' spatial blocks, our motion modules, temporal attention passed in."""
