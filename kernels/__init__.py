"""What happens between the graphs. ``reference`` has it in numpy: the CPU's kernels, and what others must equal."""
