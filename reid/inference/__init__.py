"""A trained model at work: embedding, conversion, calibration, export."""
