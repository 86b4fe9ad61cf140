"""A processor as the README shows it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stacktrail import Batch, ConfigFault, Env, Processor, option, serve


@dataclass
class Config:
    pattern: str = option(required=True, doc="Regular expression to mask.", example="password=[^&]+")
    replacement: str = option(default="***", doc="What to put in its place.")


class Mask(Processor[Config]):
    """Mask a pattern in the query."""

    name = "mask"

    def open(self, config: Config, env: Env) -> None:
        try:
            self.re = re.compile(config.pattern)
        except re.error as e:
            raise ConfigFault("pattern", f"is no regular expression: {e}") from None
        self.replacement = config.replacement

    def process(self, batch: Batch) -> None:
        for e in batch:
            if q := e.get("query"):
                e["query"] = self.re.sub(self.replacement, q)


if __name__ == "__main__":
    serve(Mask, version="1.2.0")
