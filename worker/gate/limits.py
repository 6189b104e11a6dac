"""What a file may cost. No checkpoint of an image classifier that we know comes near any of these."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Counts, lengths and bytes; each is checked before anything of that size is made."""

    zip_members: int = 65_536
    """An AdamW checkpoint has three tensors a weight."""
    zip_directory_bytes: int = 16 << 20
    zip_ratio: int = 200
    """Unpacked bytes a packed byte, of each member beyond `zip_free_bytes`. Our own artifacts are deflated."""
    zip_free_bytes: int = 1 << 20
    zip_total_ratio: int = 20
    """Of all members together, beyond `zip_free_total` bytes."""
    zip_free_total: int = 64 << 20
    pickle_bytes: int = 64 << 20
    """Of a pickle beside which the numbers lie."""
    bare_pickle_bytes: int = 512 << 20
    """Of one that holds them itself, as the course's files do."""
    opcodes: int = 4_000_000
    key_characters: int = 512
    integer_bytes: int = 32
    """PyTorch's own seeds have 8, Python's hashes 16."""
    document_values: int = 1_000_000
    """Values of an artifact's document or a table of soft labels, counted with repetitions."""
    document_characters: int = 256 << 20
    document_depth: int = 64
    tensors: int = 20_000
    dimensions: int = 8
    side: int = 2**31
    tensor_bytes: int = 8 << 30
    """Of all tensors together, and no more than `aliasing` times the file."""
    aliasing: int = 4
    """Tied weights are ordinary; a few bytes shown as a hundred tensors are not."""
    reordered_bytes: int = 1 << 30
    """The most of a storage that is held at once, because a tensor of it is not in C order."""
    reordered_rows: int = 4_000_000
    """Rows that move one by one for that, in the whole file: a channels_last ResNet-50 has 30 thousand."""
    safetensors_header_bytes: int = 8 << 20
    wrappers: int = 3
    """{"checkpoint": {"model": {...}}} happens; more is not a checkpoint."""


LIMITS = Limits()
