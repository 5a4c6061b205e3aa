"""Runs on real stores and a real server: what is logged, under which status, and what never is."""

from __future__ import annotations

import pytest

from tests.support.servers import Server
from whisperbench.tracking.client import connect, server_version

pytestmark = pytest.mark.usefixtures("no_project_run")


class TestPreflight:
    def test_a_server_that_answers_says_its_version(self, tracking_server: Server) -> None:
        """And a store without a server has none."""
        version = server_version(connect(tracking_server.address))
        assert version is not None
        assert version[0].isdigit()
