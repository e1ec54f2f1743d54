"""ONNX's side of the forward: its operations, the placement of weights, the file."""
