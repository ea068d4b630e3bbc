"""Opsets and operators of ONNX files: from a file as people have one to the standard operators of the hub."""
