"""The loop of every client that is driven from Python: cases come in as JSON, what became of each goes out as JSON.

It runs in the client's own environment, so it imports nothing but the standard library. A case is a dict: `call`, `form`
(sync or async), `fields`, `extra` (fields that the client has no parameters for), `files`, `headers`, `path`, and the
client's `url`, `key`, `retries` and `timeout`.
"""

import asyncio
import inspect
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

Case = dict[str, Any]


def drive(call: Callable[[Case], Any], shown: Callable[[Any], Any], failed: Callable[[Exception], dict[str, Any]]) -> None:
    """Makes each call; `shown` makes JSON of what it gives, `failed` of what it raises."""

    async def became(case: Case) -> dict[str, Any]:
        with ExitStack() as opened:
            case["files"] = {name: _sent(what, case["form"], opened) for name, what in case["files"].items()}
            try:
                given = call(case)
                given = await given if inspect.isawaitable(given) else given
                if case["fields"].get("stream"):
                    told = [one async for one in given] if hasattr(given, "__aiter__") else list(given)
                    return {"answer": [shown(one) for one in told]}
                return {"answer": shown(given)}
            except Exception as error:
                return {"error": {"kind": type(error).__name__, "message": str(error), **failed(error)}}

    async def all_of_them() -> list[dict[str, Any]]:
        return [await became(case) for case in json.load(sys.stdin)]

    json.dump(asyncio.run(all_of_them()), sys.stdout)


def _sent(what: str | list[str], form: str, opened: ExitStack) -> Any:
    """An opened file from sync callers, bytes from async ones, so that both ways are gone."""
    if isinstance(what, list):
        return [_sent(one, form, opened) for one in what]
    return opened.enter_context(Path(what).open("rb")) if form == "sync" else Path(what).read_bytes()
