"""Every reader under atheris, for a quarter of a minute."""

import sys
from importlib.util import find_spec
from pathlib import Path

import external_programs
import pytest

pytestmark = [pytest.mark.external, pytest.mark.slow]
SECONDS = 15


def test_no_input_breaks_a_reader(tmp_path: Path) -> None:
    if find_spec("atheris") is None:
        external_programs.missing("atheris", "atheris")
    script = Path(__file__).with_name("fuzz_readers.py")
    printed = external_programs.run(
        [sys.executable, script, tmp_path / "corpus", f"-max_total_time={SECONDS}"], tmp_path
    )
    assert f"Done {int(printed.rsplit('Done ', 1)[1].split()[0])} runs in" in printed
    assert not list(tmp_path.glob("crash-*"))
