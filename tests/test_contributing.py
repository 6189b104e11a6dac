"""CONTRIBUTING.md shows a method as it is in the code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_worked_example_is_the_code() -> None:
    """Every quoted block stands, line by line, in a file that was linked before it; every link leads somewhere."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    links, num_blocks = [], 0
    for link, block in re.findall(r"\]\(([^)]+)\)|```python\n(.*?)```", text, re.DOTALL):
        if link:
            assert (ROOT / link.partition("#")[0]).exists(), link
            links.append(link)
            continue
        num_blocks += 1
        assert any(block in (ROOT / each).read_text() for each in links[-2:]), block
    assert num_blocks == 5
