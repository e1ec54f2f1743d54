"""The Hub: repositories read into the cache, and one commit written; all requests are huggingface_hub's."""
