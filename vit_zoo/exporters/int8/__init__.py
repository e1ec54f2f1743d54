"""Int8 quantisation: calibration on images, and the search for layers that stay in float."""
