"""Pickles that are broken, or say what a state dict cannot be."""

from collections.abc import Iterator
from functools import partial

from tests.corpus.case import Case
from tests.corpus.checkpoints.containers import STATE, WEIGHT, zip_of
from tests.corpus.checkpoints.opcodes import (
    APPENDS,
    DICT,
    EMPTY_TUPLE,
    LIST,
    MARK,
    NONE,
    POP,
    REDUCE,
    TRUE,
    dict_of,
    get,
    integer,
    list_of,
    name,
    pickled,
    put,
    state,
    text,
    tuple_of,
)
from tests.corpus.checkpoints.verdicts import is_code, unreadable, unsafe


def cases() -> Iterator[Case]:
    yield from _broken()
    yield from _protocols()
    yield from _names()
    yield from _contents()


def _broken() -> Iterator[Case]:
    pickles = {
        "no STOP": STATE[:-1],
        "nothing at all": b"",
        "only a protocol": b"\x80\x02",
        "only a STOP": b".",
        "STOP with a mark on the stack": pickled(MARK, DICT),
        "STOP with two values": pickled(DICT, DICT),
        "SETITEMS without a mark": pickled(DICT, text("w"), WEIGHT, b"u"),
        "SETITEMS with an odd number": pickled(DICT, MARK, text("w"), b"u"),
        "SETITEM into a list": pickled(LIST, text("w"), NONE, b"s"),
        "APPENDS to a tuple": pickled(EMPTY_TUPLE, MARK, NONE, APPENDS),
        "APPENDS to a tensor": pickled(WEIGHT, MARK, NONE, APPENDS),
        "ADDITEMS to a dict": pickled(DICT, MARK, NONE, b"\x90"),
        "a memo that was never put": pickled(get(77)),
        "a memo beyond 32 bits": pickled(state(("w", WEIGHT)), b"j\xff\xff\xff\xff"),
        "STACK_GLOBAL of numbers": pickled(integer(1), integer(2), b"\x93", protocol=4),
        "a text that is not UTF-8": pickled(state(("w", WEIGHT), ("x", text(b"\xff\xfe")))),
        "a global without its second line": pickled(b"ctorch", protocol=2)[:-1],
        "REDUCE without arguments": pickled(name("collections.OrderedDict"), REDUCE),
    }
    for what, content in pickles.items():
        yield unreadable(f"pickle: {what}", partial(zip_of, content))
    yield unsafe("pickle: bytes behind its STOP", partial(zip_of, STATE + b"\0" * 7), "PICKLE_TRAILING")
    yield unsafe(
        "pickle: a global of 10,000 letters",
        partial(zip_of, pickled(b"c" + b"a" * 10_000 + b"\nb\n")),
        "GLOBAL_LENGTH",
    )
    yield is_code("pickle: an empty global", partial(zip_of, pickled(b"c\n\n")), "GLOBAL_FORBIDDEN")
    yield unreadable(
        "pickle: PUT of nothing", partial(zip_of, pickled(put(3), STATE[2:-1])), "PICKLE_DAMAGED"
    )
    yield unsafe(
        "pickle: it throws a value away", partial(zip_of, pickled(NONE, POP, STATE[2:-1])), "PICKLE_OPCODE"
    )
    for at in (3, 20, 60, len(STATE) // 2, len(STATE) - 2):
        yield unreadable(f"pickle: cut off after {at} bytes", partial(zip_of, STATE[:at]), "PICKLE_TRUNCATED")


def _protocols() -> Iterator[Case]:
    for number in (0, 1, 6, 127, 255):
        whole = b"\x80" + bytes([number]) + STATE[2:]
        yield unreadable(f"protocol {number}", partial(zip_of, whole), "PICKLE_PROTOCOL")


def _names() -> Iterator[Case]:
    keys = {
        "a slash": "../../../etc/passwd",
        "a backslash": "..\\weight",
        "a NUL": "w\0x",
        "a line break": "w\nx",
        "nothing": "",
        "a space": "layer weight",
        "HTML": "<script>alert(1)</script>",
        "an accent": "gewicht.\u00e9",
        "right-to-left marks": "w\u202ex",
        "a NaN-like escape": "w\x1b[31m",
    }
    for what, key in keys.items():
        yield unsafe(
            f"a tensor's name with {what}", partial(zip_of, pickled(state((key, WEIGHT)))), "TENSOR_NAME"
        )
    half = dict_of((text(b"w\xed\xa0\x80"), WEIGHT))
    yield unsafe("a tensor's name with half a surrogate pair", partial(zip_of, pickled(half)), "TENSOR_NAME")
    twice = DICT + MARK + text("w") + WEIGHT + text("w") + WEIGHT + b"u"
    yield unsafe("the same name twice", partial(zip_of, pickled(twice)), "KEY_DUPLICATE")
    collide = state(("module.w", WEIGHT), ("w", WEIGHT))
    # Only one of the two carries the prefix, so neither loses it: both stay, and fit no network.
    yield Case("one name with a prefix, one without", partial(zip_of, pickled(collide)), 422, "KEYS_MISMATCH")


def _contents() -> Iterator[Case]:
    values = {
        "an empty dict": DICT,
        "None": NONE,
        "True": TRUE,
        "a number": integer(5),
        "a text": text("weights"),
        "a bare tensor": WEIGHT,
        "a list of tensors": list_of(WEIGHT, WEIGHT),
        "a tuple of tensors": tuple_of(WEIGHT, WEIGHT),
        "a dict of numbers": state(("epoch", integer(3)), ("best", integer(9))),
        "a dict of texts": state(("model", text("resnet18"))),
        "a dict with integer keys": dict_of((integer(0), WEIGHT), (integer(1), WEIGHT)),
        "a dict with None for a key": dict_of((NONE, WEIGHT)),
        "tensors among numbers": state(("w", WEIGHT), ("epoch", integer(3))),
        "an empty wrapper": state(("model", DICT)),
        "wrappers five deep": state(
            (
                "model",
                state(("model", state(("model", state(("model", state(("model", state(("w", WEIGHT)))))))))),
            )
        ),
        "only an optimizer's state": state(
            (
                "optimizer_state_dict",
                state(("state", dict_of((integer(0), state(("exp_avg", WEIGHT))))), ("param_groups", LIST)),
            ),
        ),
        "a set": b"\x8f",
    }
    for what, value in values.items():
        protocol = 4 if what == "a set" else 2
        yield unreadable(
            f"it holds {what}", partial(zip_of, pickled(value, protocol=protocol)), "NO_STATE_DICT"
        )
