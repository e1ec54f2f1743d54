"""The smallest model that tests of files and options use."""

TINY = {"image_size": 32, "patch_size": 8, "dim": 32, "depth": 1, "heads": 2, "dim_head": 16, "mlp_dim": 64, "num_classes": 3}
