"""A lesion network for photographs: EfficientNet-Lite0 with ReLU at 128x128.  Research only, not for diagnosis."""
