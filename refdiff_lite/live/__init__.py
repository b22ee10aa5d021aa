"""The live page: the toy networks as ONNX, run in a browser by the stages in ``web/``, without Python and without a server."""
