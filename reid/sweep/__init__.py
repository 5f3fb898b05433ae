"""Many runs for one question: the grid they come from, carrying them out, and the table they end in."""
