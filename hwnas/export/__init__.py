"""A plain network leaves PyTorch: operators, ONNX, parity, INT8, model bundles.

Importing this package does not import torch: device profiles need only `Op`. The others stand in files of
their own, such as ``onnx_file`` and ``bundle``.
"""

from hwnas.export.op import Op

__all__ = ["Op"]
