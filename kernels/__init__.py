"""What happens between the graphs. ``reference`` is the mathematics in numpy: the CPU's kernels and the tests' truth."""
