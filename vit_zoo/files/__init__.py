"""Readers for untrusted files, and atomic writes. No other package opens untrusted files or renames files."""

from vit_zoo.files.atomic import Staged, staging_folder, write_text
from vit_zoo.files.images import read_image
from vit_zoo.files.pickles import read_torch
from vit_zoo.files.safetensors import SafetensorsFile, write_safetensors
from vit_zoo.files.sniff import read_json, read_json_value, read_text, sha256_of, sniff
from vit_zoo.files.stored import DTYPES, Stored, digest_of

__all__ = [
    "DTYPES",
    "SafetensorsFile",
    "Staged",
    "Stored",
    "digest_of",
    "read_image",
    "read_json",
    "read_json_value",
    "read_text",
    "read_torch",
    "sha256_of",
    "sniff",
    "staging_folder",
    "write_safetensors",
    "write_text",
]
