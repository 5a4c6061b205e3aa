"""Audio to text: the seam, one module per engine, the hardware and what `auto` resolves to on it, and features."""
