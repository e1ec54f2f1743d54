"""ONNX back end of the forward: operations as graph nodes, options of a graph, and the files."""
