"""Reading and writing files safely and atomically."""
