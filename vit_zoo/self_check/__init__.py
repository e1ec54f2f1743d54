"""Self-checks: two test images and the outputs expected for them, in each exported file, so that any machine can check it."""
