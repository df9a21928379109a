"""Pickles that mean to do harm: they ask for functions, announce sizes they have not, grow, or never end."""

import random
import struct

HUGE = (0xFFFFFFFF, 0x7FFFFFFF, 0x10000000, 300)
EVIL = (
    "os\nsystem", "builtins\neval", "builtins\nexec", "builtins\ngetattr", "numpy\nload", "numpy\nfromfile",
    "numpy\nsave", "numpy.core.multiarray\nscalar", "numpy.core.multiarray\nfrombuffer",
    "numpy.testing._private.utils\nrunstring", "subprocess\nPopen", "posix\nsystem", "importlib\nimport_module",
    "copyreg\n_reconstructor", "operator\nattrgetter", "collections\nOrderedDict", "builtins\ntuple",
    "_codecs\nencode", "numpy\ndtype", "numpy\nndarray", "numpy.core.multiarray\n_reconstruct",
    "numpy._core.numeric\n_frombuffer", "builtins\nbytearray",
)  # fmt: skip


def opcode(rng: random.Random) -> bytes:
    """One instruction of a pickle, with an operand that fits it or does harm."""
    number, text = rng.choice(HUGE), rng.choice((b"touch /tmp/x", b"latin1", b"f4", b"<", b"a", "\u00ff".encode()))
    four, eight = struct.pack("<I", number), struct.pack("<Q", number << 30)
    named, short = rng.choice(EVIL).encode() + b"\n", bytes([len(text)]) + text
    return rng.choice((
        b"c" + named, b"c" + named, b"i" + named, b"R", b"R", b"R", b"b", b"b", b"o", b"\x81", b"\x92", b"\x93",
        b"(", b"(", b"t", b"\x85", b"\x86", b"\x87", b")", b"]", b"}", b"l", b"d", b"a", b"e", b"s", b"u",
        b"\x8f", b"\x90", b"\x91", b"\x97", b"\x98", b"0", b"1", b"2", b"N", b"\x88", b"\x89", b"Q", b"P1\n",
        b"\x82\x01", b"\x84\xff\xff\xff\x7f", b"\x94", b"h\x00", b"q\x00", b"g0\n", b"p99999999999\n",
        b"r" + four, b"j" + four, b"B" + four, b"T" + four, b"X" + four, b"\x8b" + struct.pack("<i", number >> 1),
        b"\x8e" + eight, b"\x96" + eight, b"\x95" + eight, b"\x8d" + eight, b"I9" + b"9" * 5000 + b"\n",
        b"C" + short, b"\x8c" + short, b"U" + short, b"K\x01", b"J\xff\xff\xff\xff", b"\x8a\x02\xff\xff",
        b"G" + bytes(8), b"S'\\x41'\n", b"Vx\n",
    ))  # fmt: skip


def program_of_opcodes(_: bytes, rng: random.Random) -> bytes:
    """A pickle of random instructions."""
    return b"\x80\x04" + b"".join(opcode(rng) for _ in range(rng.randrange(1, 40))) + b"."


def array_of(before: bytes, shape: bytes, code: bytes, order: bytes) -> bytes:
    """Instructions for a dict with an array of no values, of what these instructions push."""
    dtype = b"cnumpy\ndtype\n" + code + b"\x85R(K\x03" + order + b"NNNtb"
    values = b"(K\x01" + shape + dtype + b"\x89C\x00tb"
    return before + b"}\x8c\x01acnumpy.core.multiarray\n_reconstruct\n)R" + values + b"s."


# A state dict with an array `a`, and the name of a slice to come.
SLICED = (
    array_of(b"", b"K\x00\x85", b"\x8c\x02f4", b"\x8c\x01<")[:-1]
    + b"\x8c\x15UnpackBigParamInfor@@}\x8c\x01w}(\x8c\x06slices"
)


def bomb(_: bytes, rng: random.Random) -> bytes:
    """A small pickle that would become large or take for ever."""
    depth = rng.choice((100, 5000, 60000))
    # Memo 0, and nothing on the stack: a tuple whose hash, or text, takes 2^60 steps.
    tuples = b")q\x000" + b"h\x00h\x00\x86q\x000" * 60
    lists = b"](" + b"N" * 20000 + b"eq\x010](" + b"h\x01" * 20000 + b"e"  # 400 million parts
    text = b"X" + struct.pack("<I", 50000) + b"x" * 50000
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(J"
        + struct.pack("<i", 50000)
        + b"tcnumpy\ndtype\n(\x8c\x02u1tR\x89"
    )
    return b"\x80\x04" + rng.choice((
        b"]" * depth + b".",
        b"(" * depth + b"t" * depth + b".",
        b")" + b"\x85" * depth + b".",
        b"}" + tuples + b"h\x00K\x01s.",
        b"}(" + tuples + b"h\x00K\x01u.",
        b"}" + tuples + b"h\x00h\x00s.",
        b"ccollections\nOrderedDict\n]]" + tuples + b"h\x00aK\x01aa\x85R.",
        b"cbuiltins\ntuple\n" + tuples + b"h\x00\x85R.",
        b"ccollections\nOrderedDict\n" + lists + b"\x85R.",
        array_of(tuples, b"h\x00", b"\x8c\x02f4", b"\x8c\x01<"),
        array_of(tuples, b")", b"h\x00", b"\x8c\x01<"),
        array_of(tuples, b")", b"\x8c\x02f4", b"h\x00"),
        b"}\x8c\x01ac_codecs\nencode\nN" + tuples + b"h\x00\x86Rs.",
        SLICED + tuples + b"h\x00\x85\x8c\x0bOriginShape)uss.",
        b"]q\x00" + b"]q\x01(" + b"h\x00" * 5000 + b"eq\x00" + b".",
        text + b"q\x01}(" + b"".join(
            b"\x8c\x04" + f"{number:04}".encode() + array + b"c_codecs\nencode\nh\x01\x8c\x06latin1\x86Rtb"
            for number in range(800)
        ) + b"u.",
        b"\x96" + struct.pack("<Q", 1 << rng.randrange(30, 63)) + b".",
        b"".join(b"r" + struct.pack("<I", 1 << bit) for bit in range(20, 32)) + b".",
    ))  # fmt: skip


def evil_call(content: bytes, rng: random.Random) -> bytes:
    """A value of a whole .pdparams becomes a call, in protocol 2's spelling."""
    name = rng.choice(EVIL).replace("\n", " ").split()
    call = f"c{name[0]}\n{name[1]}\n(S'touch /tmp/fuzzed'\ntR".encode()
    places = [place for place in range(len(content)) if content[place : place + 1] in (b"N", b"K", b")", b"\x89")]
    at = rng.choice(places or [len(content) - 1])
    return content[:at] + call + content[at + rng.choice((0, 1)) :]
