"""How good a streamed clip is: steady in time, and of its input's structure. Needs no PyTorch."""
