"""Declares torchvision's compiled operators before torchvision is imported, in processes with this folder on PYTHONPATH."""

import sys
from importlib.abc import MetaPathFinder


class Declaring(MetaPathFinder):
    """Finds nothing: it is asked for torchvision first, and declares what that needs."""

    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                if not hasattr(torch.ops.torchvision, operator):
                    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            KEPT.append(library)


KEPT = []
sys.meta_path.insert(0, Declaring())
