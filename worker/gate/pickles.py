"""A pickle read as data: a stack machine for dicts, lists, numbers and descriptions of tensors. Nothing is called.

`pickle.Unpickler` and `torch.load(weights_only=True)` build what a file names, by the file's own numbers: 2 KB gave an
object of 2 GB, and a dict key of a million tuples ended the process. Here a global is only a name on a list, a
call of it makes one of the few values below, and every length is compared with the bytes that are there.

Opcodes as `pickletools` of Python 3.11 describes them, protocols 2 to 5.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from worker.gate import known_names
from worker.gate.known_names import Inert, Name, StorageView
from worker.gate.limits import Limits
from worker.gate.refusal import is_code, shown, unreadable, unsafe

Persistent = Callable[[Any], StorageView]
"""What a persistent id means; the container knows."""


_NAME_CHARACTERS = 256


class _Mark:
    pass


_MARK = _Mark()


@dataclass
class Walk:
    """One pickle. After `run`, `end` is the position behind its STOP."""

    content: bytes | memoryview
    limits: Limits
    persistent: Persistent
    position: int = 0
    end: int = 0
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    made_bytes: int = 0

    def run(self) -> Any:
        """The value of the pickle that begins at `position`. Raises Refused."""
        content, limit = self.content, self.limits.opcodes
        for _ in range(limit):
            if self.position >= len(content):
                raise unreadable("PICKLE_TRUNCATED", "its pickle ends early; was the upload complete?")
            opcode = content[self.position]
            self.position += 1
            if opcode == _STOP:
                return self._stop()
            do = _OPCODES.get(opcode)
            if do is None:
                _refuse_opcode(opcode)
            do(self)
        raise unsafe("PICKLE_OPCODES", f"its pickle has more than {limit} instructions")

    def _stop(self) -> Any:
        if len(self.stack) != 1 or isinstance(self.stack[0], _Mark | Name):
            _damaged()
        self.end = self.position
        return self.stack[0]

    # ---- bytes

    def take(self, count: int) -> bytes | memoryview:
        start, self.position = self.position, self.position + count
        if self.position > len(self.content):
            raise unreadable("PICKLE_TRUNCATED", "its pickle says that it goes on where it ends")
        return self.content[start : self.position]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, count: int) -> None:
        try:
            self.stack.append(str(self.take(count), "utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            raise unreadable("STRING_UTF8", "its pickle has a string that is not UTF-8") from None

    def raw(self, count: int) -> None:
        self.stack.append(self.take(count))

    def integer(self) -> None:
        count = self.take(1)[0]
        if count > self.limits.integer_bytes:
            raise unsafe("INTEGER_SIZE", f"its pickle has an integer of {count} bytes")
        self.stack.append(int.from_bytes(self.take(count), "little", signed=True))

    def line(self) -> str:
        for length in range(_NAME_CHARACTERS + 1):
            if self.take(1)[0] == 0x0A:
                self.position -= length + 1
                text = bytes(self.take(length))
                self.position += 1
                return text.decode("ascii", "backslashreplace")
        raise unsafe("GLOBAL_LENGTH", "its pickle names an object with more than 256 letters")

    # ---- the stack

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            _damaged()
        return self.stack.pop()

    def top(self) -> Any:
        item = self.pop()
        self.stack.append(item)
        return item

    def pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        _damaged()

    def push_tuple(self, count: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            _damaged()
        self.stack.append(self.memo[index])

    # ---- containers

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            _damaged()
        for key, value in zip(items[::2], items[1::2], strict=True):
            key = self._key(key)
            if key in target:
                raise unsafe("KEY_DUPLICATE", f"a dict has the key {shown(key)} twice")
            target[key] = value

    def _key(self, key: Any) -> Any:
        """Only what hashes in constant time and without collisions of a stranger's choice stays what it is."""
        if isinstance(key, str):
            if len(key) > self.limits.key_characters:
                raise unsafe("KEY_LENGTH", f"a dict has a key of {len(key)} letters")
            return key
        if isinstance(key, bool) or key is None or (isinstance(key, int) and -(2**31) <= key < 2**31):
            return key
        return Inert("key")

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):  # a deque, say
            _damaged()

    def add_items(self) -> None:
        self.pop_to_mark()
        if not isinstance(self.top(), Inert):
            _damaged()

    def push_frozenset(self) -> None:
        self.pop_to_mark()
        self.stack.append(Inert("frozenset"))

    # ---- names and calls

    def push_name(self, name: str) -> None:
        known = known_names.find(name)
        if known is None:
            raise known_names.refusal(name)
        self.stack.append(known)

    def stack_name(self) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            _damaged()
        if len(module) + len(name) > _NAME_CHARACTERS:
            raise unsafe("GLOBAL_LENGTH", "its pickle names an object with more than 256 letters")
        self.push_name(f"{module}.{name}")

    def call(self) -> None:
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise is_code(
                "REDUCE_FORBIDDEN", "a pickle that calls what is no function on the list of known ones"
            )
        made = name.call(*arguments)
        if isinstance(
            made, bytes
        ):  # text of the pickle turned into bytes: once is ordinary, a million times is not
            self.made_bytes += len(made)
            if self.made_bytes > len(self.content):
                raise unsafe("PICKLE_BYTES", "its pickle makes more bytes than it has")
        self.stack.append(made)

    def build(self) -> None:
        state, target = self.pop(), self.top()
        known_names.build(target, state)

    def persistent_id(self) -> None:
        self.stack.append(self.persistent(self.pop()))

    def protocol(self) -> None:
        number = self.take(1)[0]
        if not 2 <= number <= 5:
            raise unreadable("PICKLE_PROTOCOL", f"its pickle has the protocol {number}; 2 to 5 are read")


def _damaged() -> NoReturn:
    raise unreadable("PICKLE_DAMAGED", "its pickle is damaged: what it combines does not fit together")


def _refuse_opcode(opcode: int) -> NoReturn:
    raise unsafe(
        "PICKLE_OPCODE", f"its pickle has the instruction 0x{opcode:02x}, which no dict of tensors needs"
    )


_STOP = ord(".")
_OPCODES: dict[int, Callable[[Walk], None]] = {
    0x80: Walk.protocol,
    0x95: lambda walk: walk.number("<Q") and None,  # FRAME: a hint for streams
    ord("X"): lambda walk: walk.text(walk.number("<I")),
    0x8C: lambda walk: walk.text(walk.number("<B")),
    0x8D: lambda walk: walk.text(walk.number("<Q")),
    ord("C"): lambda walk: walk.raw(walk.number("<B")),
    ord("B"): lambda walk: walk.raw(walk.number("<I")),
    0x8E: lambda walk: walk.raw(walk.number("<Q")),
    0x96: lambda walk: walk.raw(walk.number("<Q")),
    ord("J"): lambda walk: walk.stack.append(walk.number("<i")),
    ord("K"): lambda walk: walk.stack.append(walk.number("<B")),
    ord("M"): lambda walk: walk.stack.append(walk.number("<H")),
    0x8A: Walk.integer,
    ord("G"): lambda walk: walk.stack.append(walk.number(">d")),
    ord("N"): lambda walk: walk.stack.append(None),
    0x88: lambda walk: walk.stack.append(True),
    0x89: lambda walk: walk.stack.append(False),
    ord("("): lambda walk: walk.stack.append(_MARK),
    ord(")"): lambda walk: walk.stack.append(()),
    0x85: lambda walk: walk.stack.append((walk.pop(),)),
    0x86: lambda walk: walk.push_tuple(2),
    0x87: lambda walk: walk.push_tuple(3),
    ord("t"): lambda walk: walk.stack.append(tuple(walk.pop_to_mark())),
    ord("]"): lambda walk: walk.stack.append([]),
    ord("a"): lambda walk: walk.append([walk.pop()]),
    ord("e"): lambda walk: walk.append(walk.pop_to_mark()),
    ord("}"): lambda walk: walk.stack.append({}),
    ord("s"): lambda walk: walk.set_items([walk.pop(), walk.pop()][::-1]),
    ord("u"): lambda walk: walk.set_items(walk.pop_to_mark()),
    0x8F: lambda walk: walk.stack.append(Inert("set")),
    0x90: Walk.add_items,
    0x91: Walk.push_frozenset,
    ord("q"): lambda walk: walk.put(walk.number("<B")),
    ord("r"): lambda walk: walk.put(walk.number("<I")),
    0x94: lambda walk: walk.put(len(walk.memo)),
    ord("h"): lambda walk: walk.get(walk.number("<B")),
    ord("j"): lambda walk: walk.get(walk.number("<I")),
    ord("c"): lambda walk: walk.push_name(f"{walk.line()}.{walk.line()}"),
    0x93: Walk.stack_name,
    ord("R"): Walk.call,
    0x81: Walk.call,  # NEWOBJ: the class called with its arguments
    ord("b"): Walk.build,
    ord("Q"): Walk.persistent_id,
}


def walk(content: bytes | memoryview, limits: Limits, persistent: Persistent) -> Any:
    """The value of a pickle that fills `content`. Raises Refused.

    Containers are dict, list and tuple; tensors `Tensor`; what carries no weights and does no harm is `Inert`. The value may
    refer to itself or share parts: never recurse into it without a limit.
    """
    machine = Walk(content, limits, persistent)
    value = machine.run()
    if machine.end != len(content):
        raise unsafe("PICKLE_TRAILING", f"{len(content) - machine.end} bytes follow the end of its pickle")
    return value


def no_persistent_ids(_: Any) -> StorageView:
    """For pickles that hold their numbers themselves."""
    raise unreadable("PERSISTENT_ID", "its pickle refers to something outside of it")
