"""Options of a comparison: run ids and prices."""

from __future__ import annotations

from typing import Any

import pytest

from whisperbench.config.compare import CompareConfig
from whisperbench.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": "abcd,abcd"}, "expected two different run ids"),
        ({"runs": "abcd,xyz"}, "4 to 32 hexadecimal digits"),
        ({"runs": "abcd,ef01,2345,6789", "baseline": "last"}, "expected one to three run ids"),
        ({"max_slowdown": 100.0}, "a number from 0 to less than 100"),
        ({"margin": 0.0}, "a number above 0"),
        *(
            ({"prices": text}, "expected none, or GPU=USD per GPU hour, each GPU once, separated by commas, such as")
            for text in ("H100", "H100=cheap", "=2", "H100=1,h100=2", "H100=" + "9" * 400, "H100=٣", "A=2=3")
        ),
    ],
)
def test_a_wrong_value_is_refused(options: dict[str, Any], message: str) -> None:
    """The message shows the form that is expected."""
    with pytest.raises(ConfigError) as refused:
        CompareConfig(**options)
    assert message in str(refused.value)


def test_texts_become_lists() -> None:
    """Ids and prices are split; words for an unset option are None."""
    config = CompareConfig.from_params({"runs": "abcd, ef01", "prices": "H100 80GB=2.10,A10=0.6"})
    assert config.run_ids == ("abcd", "ef01")
    assert config.price_of == {"H100 80GB": 2.1, "A10": 0.6}
    assert CompareConfig().price_of == {}
    assert CompareConfig(gpu="H100").scope == "every experiment with gpu=H100"
