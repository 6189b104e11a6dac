"""Pickles that would run something: every way to name an object and every way to call it.

`SENTINEL` is the file that a reader would leave behind that did run one of them; the tests look for it.
"""

import io
import os
import pickle
import struct
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.corpus.case import Case
from tests.corpus.checkpoints.containers import STATE, WEIGHT, legacy, zip_of
from tests.corpus.checkpoints.opcodes import (
    BUILD,
    DICT,
    EMPTY_TUPLE,
    MARK,
    NEWOBJ,
    NEWOBJ_EX,
    NONE,
    POP,
    REDUCE,
    call,
    dict_of,
    get,
    integer,
    name,
    pickled,
    put,
    stack_name,
    state,
    tensor,
    text,
    tuple_of,
)
from tests.corpus.checkpoints.verdicts import is_code, unsafe

SENTINEL = "executed-by-a-checkpoint"
_COMMAND = text(f"touch {SENTINEL}")

# What has been found in files of attackers, and what does the same under another name.
_CALLED = (
    "os.system",
    "posix.system",
    "nt.system",
    "os.popen",
    "os.execl",
    "subprocess.Popen",
    "subprocess.check_output",
    "builtins.eval",
    "builtins.exec",
    "__builtin__.eval",
    "__builtin__.getattr",
    "builtins.__import__",
    "builtins.open",
    "builtins.compile",
    "builtins.print",
    "builtins.getattr",
    "functools.partial",
    "functools.reduce",
    "operator.methodcaller",
    "operator.attrgetter",
    "importlib.import_module",
    "runpy.run_path",
    "runpy._run_code",
    "code.InteractiveInterpreter",
    "pty.spawn",
    "webbrowser.open",
    "timeit.timeit",
    "cProfile.run",
    "bdb.Bdb.run",
    "pdb.run",
    "doctest.debug_script",
    "ensurepip._run_pip",
    "pip.main",
    "pip._internal.main",
    "pydoc.pipepager",
    "shutil.rmtree",
    "socket.create_connection",
    "urllib.request.urlopen",
    "ctypes.CDLL",
    "ctypes.string_at",
    "marshal.loads",
    "pickle.loads",
    "_pickle.loads",
    "dill.loads",
    "joblib.load",
    "numpy.load",
    "numpy.testing._private.utils.runstring",
    "numpy.f2py.crackfortran.getlincoef",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.jit.unsupported_tensor_ops.execWrapper",
    "torch.storage._load_from_bytes",
    "torch.utils.bottleneck.__main__.run_cprofile",
    "torch.utils.collect_env.run",
    "torch.utils.data.datapipes.utils.decoder.basichandlers",
    "torch._dynamo.guards.GuardBuilder.get",
    "torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression",
    "torch._inductor.codecache.compile_file",
    "torch.package.package_importer.PackageImporter",
    "torch.serialization.load",
    "torch.ops.load_library",
    "torch.classes.load_library",
    "sympy.sympify",
    "pandas.read_pickle",
    "types.CodeType",
    "types.FunctionType",
    "copyreg._reconstructor",
    "copyreg.__newobj__",
    "weakref.finalize",
    "logging.config.fileConfig",
    "asyncio.unix_events._UnixSubprocessTransport._start",
    "collections.OrderedDict.__init__",
    "torch._utils._rebuild_tensor_v2.__globals__.get",
)
# Whole networks, and what else only its own program can read.
_MODULES = (
    "torch.nn.modules.container.Sequential",
    "torchvision.models.resnet.ResNet",
    "__main__.Net",
    "torch.optim.adamw.AdamW",
    "torch.utils.data.dataloader.DataLoader",
    "torch.fx.graph_module.reduce_graph_module",
    "torch._dynamo.eval_frame.OptimizedModule",
    "timm.models.resnet.ResNet",
    "omegaconf.dictconfig.DictConfig",
)
# Those whose refusal is a form that is not read rather than code (docs/security.md).
_UNREADABLE = ("torch.storage._load_from_bytes",)


def cases() -> Iterator[Case]:
    yield from _names()
    yield from _ways_to_call()
    yield from _attributes()
    yield from _real_ones()


def _names() -> Iterator[Case]:
    for dotted in (*_CALLED, *_MODULES):
        if dotted in _UNREADABLE:
            continue
        pickle_ = pickled(state(("w", WEIGHT), ("x", call(dotted, _COMMAND))))
        yield is_code(f"call of {dotted}", partial(zip_of, pickle_), "GLOBAL_FORBIDDEN")
    for dotted in ("os.system", "builtins.eval", "torch.load"):
        pickle_ = pickled(state(("w", WEIGHT), ("x", call(dotted, _COMMAND))))
        yield is_code(f"legacy: call of {dotted}", partial(legacy, pickle_), "GLOBAL_FORBIDDEN")
        bare = pickled(state(("x", call(dotted, _COMMAND))))
        yield is_code(f"bare pickle: call of {dotted}", partial(bytes, bare), "GLOBAL_FORBIDDEN")


def _ways_to_call() -> Iterator[Case]:
    system, arguments = name("os.system"), tuple_of(_COMMAND)
    forms: dict[str, tuple[bytes, int]] = {
        "STACK_GLOBAL": (stack_name("os.system") + arguments + REDUCE, 4),
        "a global with dots in its attribute": (
            text("builtins") + text("list.append.__class__") + b"\x93" + arguments + REDUCE,
            4,
        ),
        "NEWOBJ": (system + arguments + NEWOBJ, 2),
        "named and not called": (system, 2),
        "called and thrown away": (system + arguments + REDUCE + POP + NONE, 2),
        "through the memo": (system + put(9) + POP + get(9) + arguments + REDUCE, 2),
        "as a dict's value": (dict_of((text("f"), system)), 2),
        "as an argument of OrderedDict": (call("collections.OrderedDict", system), 2),
        "as a default factory": (call("collections.defaultdict", name("os.getcwd")), 2),
        "as an attribute of a Namespace": (
            name("argparse.Namespace") + EMPTY_TUPLE + REDUCE + dict_of((text("f"), system)) + BUILD,
            2,
        ),
        "in a tensor's hooks": (tensor(hooks=dict_of((integer(0), system))), 2),
    }
    for form, (value, protocol) in forms.items():
        whole = pickled(state(("w", WEIGHT), ("x", value)), protocol=protocol)
        if form == "called and thrown away":
            yield Case(f"os.system, {form}", partial(zip_of, whole), 422, "CHECKPOINT_IS_CODE")
            continue
        yield is_code(f"os.system, {form}", partial(zip_of, whole))
    yield is_code("the whole pickle is one call", partial(zip_of, pickled(call("os.system", _COMMAND))))
    yield is_code(
        "before the state dict, popped",
        partial(zip_of, pickled(call("os.system", _COMMAND), POP, STATE[2:-1])),
    )
    second = pickled(call("os.system", _COMMAND))
    yield unsafe("a second pickle behind the first", partial(zip_of, STATE + second), "PICKLE_TRAILING")
    yield is_code(
        "a name of Cyrillic letters",
        partial(zip_of, pickled(state(("x", "c\u043es\nsystem\n".encode() + arguments + REDUCE)))),
        "GLOBAL_FORBIDDEN",
    )
    # Opcodes of old pickles that name an object by themselves: none is needed, so all are closed.
    opcodes = {
        "INST": MARK + _COMMAND + b"ios\nsystem\n",
        "OBJ": MARK + name("collections.OrderedDict") + b"o",
        "NEWOBJ_EX": name("collections.OrderedDict") + EMPTY_TUPLE + DICT + NEWOBJ_EX,
        "EXT1": b"\x82\x01",
        "EXT2": b"\x83\x01\x00",
        "EXT4": b"\x84" + struct.pack("<i", 1),
        "PERSID": b"Pos.system\n",
        "STRING": b"S'x'\n",
        "UNICODE": b"Vx\n",
        "LONG": b"L1L\n",
        "INT": b"I1\n",
        "FLOAT": b"F1.5\n",
        "NEXT_BUFFER": b"\x97",
        "READONLY_BUFFER": NONE + b"\x98",
        "LONG4": b"\x8b" + struct.pack("<i", 1) + b"\x01",
        "DUP": NONE + b"2" + POP,
    }
    for opcode, content in opcodes.items():
        whole = pickled(state(("w", WEIGHT), ("x", content)))
        yield unsafe(f"opcode {opcode}", partial(zip_of, whole), "PICKLE_OPCODE")


def _attributes() -> Iterator[Case]:
    """BUILD sets attributes: on the wrong object that is as good as a call."""
    replaced = dict_of((text("items"), name("os.system")))
    ordered = call("collections.OrderedDict")
    yield is_code(
        "an OrderedDict whose items() is replaced",
        partial(zip_of, pickled(ordered + MARK + text("w") + WEIGHT + b"u" + replaced + BUILD)),
        "GLOBAL_FORBIDDEN",
    )
    yield is_code(
        "a tensor whose numel() is replaced",
        partial(
            zip_of, pickled(state(("w", WEIGHT + dict_of((text("numel"), name("builtins.eval"))) + BUILD)))
        ),
        "GLOBAL_FORBIDDEN",
    )
    yield is_code(
        "BUILD on a function",
        partial(zip_of, pickled(state(("x", name("torch._utils._rebuild_tensor_v2") + DICT + BUILD)))),
        "BUILD_FORBIDDEN",
    )
    yield is_code(
        "a call of a dict",
        partial(zip_of, pickled(state(("x", DICT + EMPTY_TUPLE + REDUCE)))),
        "REDUCE_FORBIDDEN",
    )
    yield is_code(
        "a call of a tensor",
        partial(zip_of, pickled(state(("x", WEIGHT + EMPTY_TUPLE + REDUCE)))),
        "REDUCE_FORBIDDEN",
    )
    yield is_code(
        "a parameter with backward hooks",
        partial(
            zip_of,
            pickled(
                state(
                    (
                        "w",
                        call(
                            "torch._utils._rebuild_parameter",
                            WEIGHT,
                            b"\x88",
                            dict_of((integer(0), text("f"))),
                        ),
                    )
                )
            ),
        ),
        "TENSOR_HOOKS",
    )
    for made in ("FloatTensor", "FloatStorage", "UntypedStorage", "storage.UntypedStorage", "LongStorage"):
        yield is_code(
            f"a call of torch.{made}(2**20): memory that nobody has filled",
            partial(zip_of, pickled(state(("w", call(f"torch.{made}", integer(2**20)))))),
        )
    for made in ("empty", "zeros", "Tensor", "tensor", "from_file", "frombuffer", "_C._rebuild", "ones"):
        yield is_code(
            f"a call of torch.{made}",
            partial(zip_of, pickled(state(("w", call(f"torch.{made}", integer(4)))))),
            "GLOBAL_FORBIDDEN",
        )


class _Shell:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {SENTINEL}",)


def _real_ones() -> Iterator[Case]:
    """As the libraries themselves write them."""
    for protocol in (2, 3, 4, 5):
        yield is_code(
            f"pickle.dumps of a shell, protocol {protocol}", partial(pickle.dumps, {"w": _Shell()}, protocol)
        )
    yield is_code("pickle.dumps of a shell, protocol 0", partial(pickle.dumps, {"w": _Shell()}, 0))
    yield is_code("torch.save of a shell", partial(saved, {"w": torch.zeros(2), "x": _Shell()}))
    yield is_code("torch.save of a whole module", partial(saved, torch.nn.Linear(2, 2)))
    yield is_code("torch.save of a dict with a module", partial(saved, {"model": torch.nn.Linear(2, 2)}))
    yield is_code(
        "legacy torch.save of a whole module",
        partial(saved, torch.nn.Linear(2, 2), _use_new_zipfile_serialization=False),
    )
    yield is_code("pickle.dumps of a whole module", partial(pickle.dumps, torch.nn.Linear(2, 2)))
    yield is_code("a function of its own", partial(saved, {"w": torch.zeros(2), "f": Path.touch}))


def saved(value: Any, **options: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of source code that it does not find for this module's classes
        torch.save(value, buffer, **options)
    return buffer.getvalue()
