import pytest

from sparsegpt_cli.options import parse_size
from sparsegpt_core.errors import InputError


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 << 30), ("8G", 8 << 30), ("500 MB", 500 << 20), ("1.5g", 3 << 29), ("4096", 4096), ("1e9", 10**9)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "1..5G", "8 GiBs", "1e999"])
def test_text_that_is_not_a_size_is_refused(text):
    with pytest.raises(InputError, match="is not a memory size"):
        parse_size(text)
