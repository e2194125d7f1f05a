"""The bundle: the chosen variant as a folder that runs on the device by itself."""
