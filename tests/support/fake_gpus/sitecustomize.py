"""Processes that find this on their path see a GPU of the kind that the file named by FAKE_GPU holds; none if it is
empty."""

from __future__ import annotations

import os
from pathlib import Path

if "FAKE_GPU" in os.environ:
    from whisperbench.engines import hardware

    def detect_hardware(_visible: str | None = None) -> hardware.Hardware:
        kind = Path(os.environ["FAKE_GPU"]).read_text(encoding="utf-8")
        device = hardware.Device(kind, 81_559, (9, 0))
        return hardware.Hardware("Fake CPU", (device,) if kind else (), "580.1", False, hardware.usable_cores())

    hardware.detect_hardware = detect_hardware
    hardware.open_device = lambda _name: None  # NVML answers no query about it
