"""What quantize does beyond one call of a format's tool: layers that stay float, sources trained on, bands of accuracy."""
