import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes: threads would get in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def shared_data() -> Path:
    """Real files for optional tests: $PICKEROPT_DATA, else ../shared/data beside the checkout."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PICKEROPT_DATA", default))
    if not folder.is_dir():
        pytest.skip("no folder of real data")
    return folder
