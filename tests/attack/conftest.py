"""The site under attack: the test bed of tests/site, with an attacker and an ordinary visitor.

The attacker is the outside host and the visitor this machine, or the other way round: each has an address of its own.
All traffic goes to the test bed, and each test bounds how much of it there is.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.site.conftest import (  # noqa: F401  # fixtures
    authority,
    client,
    http,
    mailbox,
    names,
    outside,
    testbed,
    visitor,
    vps,
    way_in,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them as tests of a provisioned site."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.site)
