"""Which variables a Paddle program saves: the names that a file of combined variables leaves out.

Two kinds: ProgramDesc of fluid and Paddle 2 (`__model__`, `.pdmodel`), a message of protobuf
(paddle/fluid/framework/framework.proto), and the JSON of Paddle 3 (paddle/fluid/pir/serialize_deserialize), in which an
operation "p" is a parameter.
"""

from pathlib import Path
from typing import Any

from models.common.errors import UserError, shorten
from models.common.files import read_json
from models.common.weights.protobuf_wire import Damaged, block, fields, numbers

LARGEST_PROGRAM = 64 << 20  # bytes; that of a BERT of 24 layers has about one million
_LOD_TENSOR = 7  # VarType.Type of what is saved; feed, fetch, readers and the like have others


def program_of(path: Path) -> Path | None:
    """The program beside a file of combined variables, None if there is none."""
    names = [f"{path.stem}.json", f"{path.stem}.pdmodel", "__model__"]
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def variable_shapes(path: Path) -> dict[str, list[int]]:
    """Name -> shape of the variables that a program keeps; a `UserError` for what is no program."""
    if path.stat().st_size > LARGEST_PROGRAM:
        raise UserError(f"{path}: {path.stat().st_size} bytes are too many for a program; is it the right file?")
    try:
        found = _of_json(read_json(path)) if path.suffix == ".json" else _of_description(memoryview(path.read_bytes()))
    except (Damaged, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{path}: not a whole Paddle program ({shorten(str(error))}); copy it again") from None
    if not found:
        raise UserError(f"{path}: a program without a variable that it keeps; is it the right file?")
    return found


def _of_description(program: memoryview) -> dict[str, list[int]]:
    """Of the first block, the global one: persistable tensors."""
    blocks = [block(part) for number, part in fields(program) if number == 1]
    if not blocks:
        raise Damaged("no block")
    found = {}
    for number, part in fields(blocks[0]):
        if number == 3:
            name, persistable, kind, dims = _variable(block(part))
            if persistable and kind == _LOD_TENSOR:
                found[name] = dims
    return found


def _variable(message: memoryview) -> tuple[str, bool, int, list[int]]:
    name, persistable, kind, dims = "", False, 0, []
    for number, part in fields(message):
        if number == 1:
            name = str(block(part), "utf-8")
        elif number == 2:
            kind, dims = _variable_type(block(part))
        elif number == 3:
            persistable = bool(part)
    return name, persistable, kind, dims


def _variable_type(message: memoryview) -> tuple[int, list[int]]:
    kind, dims = 0, []
    for number, part in fields(message):
        if number == 1 and isinstance(part, int):
            kind = part
        elif number == 3:  # LoDTensorDesc, whose first field is a TensorDesc
            descriptions = [block(inner) for field, inner in fields(block(part)) if field == 1]
            dims = [dim for one in descriptions for field, inner in fields(one) if field == 2 for dim in numbers(inner)]
    return kind, dims


def _of_json(program: Any) -> dict[str, list[int]]:
    if program["base_code"]["magic"] != "pir":
        raise Damaged("it is no program of Paddle 3")
    operations = program["program"]["regions"][0]["blocks"][0]["ops"]
    return dict(_parameter(operation) for operation in operations if operation["#"] == "p")


def _parameter(operation: dict[str, Any]) -> tuple[str, list[int]]:
    name, dims = operation["A"][3], operation["O"]["TT"]["D"][1]
    if not isinstance(name, str) or not isinstance(dims, list):
        raise Damaged("a parameter without a name or a shape")
    return name, dims
