"""What a user copies to the device in the end: collected, described, proved."""
