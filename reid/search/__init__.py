"""Search in a folder of person crops: the index (`gallery`) and a web page for it (`serve`)."""
