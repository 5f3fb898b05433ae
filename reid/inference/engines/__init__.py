"""Networks run by the fastest engine that computes the same as PyTorch: ONNX Runtime or OpenVINO on the CPU.

sessions.py  an exported network in one of the libraries, with one thread per part of a batch
export.py    the export that the libraries read, kept in the cache by `model_id`
speed.py     seconds per image of each engine on this machine, measured once and remembered
engine.py    the choice of an engine with the first batch of images, and embedding with it
"""
