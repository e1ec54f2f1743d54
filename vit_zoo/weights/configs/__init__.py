"""Config files of other libraries, read and written: models of transformers and timm, and their image preparation."""
