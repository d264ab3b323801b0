"""Tests that become another user; root itself passes every permission test vacuously."""

import os

import pytest

# CI sets the variable: there such a test fails instead of being left out.
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 and "FRAMEGATE_TESTS_AS_ROOT" not in os.environ,
    reason="permissions as another user are NOT tested: run pytest as root for that",
)
