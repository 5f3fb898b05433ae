"""Export a network to ONNX or `torch.export`, with embedded metadata and a model card.

interface.py         inputs and outputs of an exported file
metadata.py          metadata embedded in an exported file
local_connection.py  locally connected layers in traceable operations
tracing.py           the network as an exportable module, traced by `torch.export`
formats.py           serialization to ONNX and .pt2, and running the serialized network
verification.py      comparison of an exported network with PyTorch
exporter.py          tracing, serialization and verification in one call
sample_images.py     images on which an export is verified
scores.py            evaluation scores of a checkpoint
card.py              the model card
files.py             writing the exported file and its card
"""
