"""Side-by-side measurements: ratios in one run, because the machines are shared and noisy."""
