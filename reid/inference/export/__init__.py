"""A network as a file for other programs: ONNX, or a program of `torch.export`, with a card that says what it is.

form.py     what the file takes and gives
network.py  the network in that form, and traced
local.py    local connection, as others can compute it
files.py    the traced network as the bytes of a file, and what those bytes answer
facts.py    what the file tells about itself
scores.py   the scores of a checkpoint, where a run or an evaluation left them beside it
crops.py    the images it is compared on
make.py     from network to checked file
card.py     the model card
"""
