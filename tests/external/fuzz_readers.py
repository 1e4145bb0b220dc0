"""Coverage-guided fuzzing of every reader of picks, for a bounded time.

    python tests/external/fuzz_readers.py CORPUS_FOLDER -max_total_time=60

Needs atheris. Starts from the seeds of tests/io/test_io_fuzz.py and checks what that file checks: picks,
or one of our own errors. Ends with an error, and the input in a file `crash-…`, where anything else happens.
"""

import hashlib
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "io"))
with atheris.instrument_imports(include=["pickeropt.io"]):
    import pickeropt.io.picks
from test_io_fuzz import SEEDS, check

MOST_BYTES = 4096


def one(content: bytes) -> None:
    check(content, "x.dat")


def main() -> None:
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    atheris.Setup([sys.argv[0], f"-max_len={MOST_BYTES}", *sys.argv[2:], str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    assert pickeropt.io.picks is not None
    main()
