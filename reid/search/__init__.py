"""A folder of crops as a searchable index, and a web page on it."""
