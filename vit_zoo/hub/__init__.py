"""Hugging Face Hub: download of repositories into the cache, upload in one commit; huggingface_hub makes all requests."""
