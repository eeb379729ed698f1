"""The tests of sessionapi."""

import pytest

pytest.register_assert_rewrite("tests.support")  # so that a failed assertion of a helper shows its values
