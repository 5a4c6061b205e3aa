"""What one run holds: its names, keys and contents, and how they are kept on local disk until a server has them."""
