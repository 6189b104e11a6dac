"""Files of other programs, told by their first bytes: each is refused with what it is."""

import re

from worker.gate.refusal import RECIPE, Refused, is_code, shown, unreadable

_CONVERT = "Load the network in PyTorch and save its state_dict: " + RECIPE
_FIRST_BYTES: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)"),
    (b"\x1f\x8b", "compressed with gzip: unpack it before the upload"),
    (b"BZh", "compressed with bzip2: unpack it before the upload"),
    (b"\xfd7zXZ\x00", "compressed with xz: unpack it before the upload"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it before the upload"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x93NUMPY", "a single numpy array (.npy)"),
    (b"GGUF", "a GGUF file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"<", "a page of HTML or XML (a download that asked for a login?)"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: git lfs pull"),
    (b"{", "a JSON text"),
    (b"PK\x05\x06", "an empty zip"),
)
_EXECUTABLES = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"#!")
# Without the mark of protocol 2: an object is named, or a container or its mark comes first.
_TEXT_PICKLE = re.compile(rb"c[\w.]+\n[\w.]+\n[(\])}pqR.]|\((?:[dlt][pq.]|[SVXKMJIFNUG(\]}lci])|[\]})][qp.(]")
_NAMED_OBJECT = re.compile(rb"[ci][A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n")
_TFLITE = b"TFL3"


def refusal(head: bytes, file_bytes: int) -> Refused:
    """What to say of a file that is no checkpoint. `head`: its first bytes, at least 300 where there are so many."""
    if not file_bytes:
        return unreadable("EMPTY", "the file is empty; was the upload complete?")
    if head.startswith(_EXECUTABLES):
        return is_code("EXECUTABLE", "the file is a program")
    if _TEXT_PICKLE.match(head):
        if _NAMED_OBJECT.search(head):
            return is_code("PICKLE_PROTOCOL", "a pickle of protocol 0 or 1 that names Python objects")
        return unreadable("PICKLE_PROTOCOL", "it is a pickle of protocol 0 or 1; 2 to 5 are read")
    if head[257:262] == b"ustar" or head.startswith(b"storages"):
        return unreadable("TAR", "it is a tar archive: unpack it, and upload the checkpoint that it holds")
    if head[4:8] == _TFLITE:
        return unreadable("FOREIGN", "it is a TensorFlow Lite model", _CONVERT)
    if _looks_like_onnx(head):
        return is_code("ONNX", "the file is an ONNX program: a graph of another vocabulary")
    for first, what in _FIRST_BYTES:
        if head.startswith(first):
            return unreadable("FOREIGN", f"it is {what}", _CONVERT)
    return unreadable(
        "FOREIGN",
        f"it begins with {shown(head[:8].hex(' '))}, which neither torch.save nor safetensors writes",
        _CONVERT,
    )


def _looks_like_onnx(head: bytes) -> bool:
    """A ModelProto (https://onnx.ai/onnx/repo-docs/IR.html): field 1, the version, small; then the producer's name."""
    return len(head) > 4 and head[0] == 0x08 and head[1] < 0x20 and head[2] in (0x12, 0x1A, 0x22, 0x3A, 0x42)
