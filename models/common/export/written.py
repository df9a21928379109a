"""What every writer of a format returns. Needs no framework."""

from dataclasses import dataclass

from models.common.export.manifest import GraphInput, GraphOutput


@dataclass(frozen=True)
class Written:
    """A written graph: version of its format, the program that wrote it, what goes in and what comes out."""

    version: int
    producer: str
    inputs: tuple[GraphInput, ...]
    outputs: tuple[GraphOutput, ...]
