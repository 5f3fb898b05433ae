"""SVDNet (Sun et al. 2017): Step 0, decorrelation, Restraint, Relaxation, and the iteration over them."""
