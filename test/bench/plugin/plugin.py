"""What P9 measures in Python: the same as main.go."""

from stacktrail import Batch, Output, Processor, serve


class Touch(Processor[None]):
    """Set the query."""

    name = "touch"

    def process(self, batch: Batch) -> None:
        for e in batch:
            e["query"] = "limit=***"


class Void(Output[None]):
    """Keep nothing."""

    name = "void"

    def write(self, batch: Batch) -> None:
        pass


if __name__ == "__main__":
    serve(Touch, Void)
