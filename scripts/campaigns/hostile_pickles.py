"""Makes pickles that call something: each would leave a file or a folder named `executed` where it is read."""

import io
import pickle
import zipfile

NAME = "executed"
OPENS = f"open({NAME!r}, 'w').close()"

# A module, a function in it, and its arguments. None does harm.
CALLS = [
    ("posix", "mkdir", (NAME,)),
    ("os", "mkdir", (NAME,)),
    ("os", "makedirs", (NAME,)),
    ("posix", "system", (f"touch {NAME}",)),
    ("os", "system", (f"touch {NAME}",)),
    ("subprocess", "check_call", (["touch", NAME],)),
    ("builtins", "exec", (OPENS,)),
    ("builtins", "eval", (OPENS,)),
    ("builtins", "open", (NAME, "w")),
    ("__builtin__", "eval", (OPENS,)),
    ("_io", "open", (NAME, "w")),
    ("codecs", "open", (NAME, "w")),
    ("shutil", "copyfile", ("/dev/null", NAME)),
    ("logging", "FileHandler", (NAME,)),
    ("torch", "save", ([], NAME)),
    ("cProfile", "run", (OPENS,)),
    ("numpy", "save", (NAME, [1])),
]


def value(content):
    """A value's instructions, without the frame around them."""
    return pickle.dumps(content, 2)[2:-1]


def call(random):
    """Instructions that call one of these, in one of the ways a pickle has."""
    module, name, arguments = random.choice(CALLS)
    by_line = f"c{module}\n{name}\n".encode()
    by_stack = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93"
    each = b"".join(value(argument) for argument in arguments)
    return random.choice([
        by_line + value(arguments) + b"R",
        by_stack + value(arguments) + b"R",
        by_line + value(arguments) + b"\x81",
        b"(" + each + f"i{module}\n{name}\n".encode(),
        b"(" + by_line + each + b"o",
        # Through the memo, and with a state on top.
        by_line + b"q\xf00h\xf0" + value(arguments) + b"R" + value({"a": 1}) + b"b",
    ])


def hostile(random):
    """A file with a call in it, as PyTorch writes files: of the old kind, of the new one, or a bare pickle."""
    bad = call(random)
    body = b"\x80" + random.choice([b"\x02", b"\x04"]) + random.choice([
        bad,
        b"}" + value("weight") + bad + b"s",
        b"}(" + value("weight") + b"K\x01" + value("other") + bad + b"u",
        b"ccollections\nOrderedDict\n)R(" + value("weight") + bad + b"u",
        # As a storage, and as an argument of what PyTorch itself calls.
        b"}" + value("weight") + b"(" + value("storage") + bad + value("0") + value("cpu") + b"K\x04tQs",
        b"}" + value("weight") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + bad + b"K\x00K\x01\x85K\x01\x85\x89NtRs",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(" + bad + b"NN}tR",
    ]) + b"."
    kind = random.randrange(3)
    if kind == 0:
        return body
    if kind == 1:
        about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
        start = [0x1950A86A20F9469CFC6C, 1001, about]
        return b"".join(pickle.dumps(one, 2) for one in start) + body + pickle.dumps([], 2)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as to:
        for name, content in (("data.pkl", body), ("byteorder", b"little"), ("data/0", bytes(16)), ("version", b"3\n")):
            to.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return packed.getvalue()
