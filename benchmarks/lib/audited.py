"""`unclip` with a record of every file that it opens and every connection that it makes, in its workers too.

    python benchmarks/lib/audited.py RECORD serve ...

RECORD gets a line for each: `open` or `connect`, and what. Workers import this file again, which sets the hook there too.
"""

import os
import sys
from typing import Any

_RECORD = os.environ.setdefault("UNCLIP_RECORD", sys.argv[1] if len(sys.argv) > 1 else os.devnull)
_file = os.open(_RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_NAMES = {"open": "open", "socket.connect": "connect", "socket.getaddrinfo": "connect", "socket.sendto": "connect"}


def _note(name: str, given: tuple[Any, ...]) -> None:
    if name in _NAMES:
        what = given[0] if name == "open" else given[:2]
        os.write(_file, f"{_NAMES[name]} {what!r}\n".encode())


sys.addaudithook(_note)

if __name__ == "__main__":
    from unclip.cli import main

    raise SystemExit(main(sys.argv[2:]))
