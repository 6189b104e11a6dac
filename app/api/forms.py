"""A file from an HTML form (multipart/form-data, RFC 7578), straight into the storage.

The framework's own form parser keeps up to a thousand temporary files outside of the data folder, and takes a
form that ends in the middle of its file for a complete one.
"""

from pydantic import TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import Problem
from app.spec.resources import FileName
from app.storage.objects import Writer

OVERHEAD_BYTES = 64 << 10
"""Boundaries and headers around the file."""


class FileForm:
    """Write the form's bytes into it as they come; the file's go on to the storage's writer.

    Raises Problem 400 INVALID_FORM, 413 FORM_TOO_LARGE, 415 FORM_EXPECTED, 422 INVALID_SPEC or INVALID_NAME.
    """

    def __init__(self, content_type: str, writer: Writer, max_file_bytes: int) -> None:
        self._writer = writer
        self._left = max_file_bytes + OVERHEAD_BYTES
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._name: str | None = None
        self._ended = False
        self._parser = self._parser_of(content_type)

    def _parser_of(self, content_type: str) -> MultipartParser:
        media_type, options = parse_options_header(content_type)
        if media_type != b"multipart/form-data":
            raise Problem(
                415, "FORM_EXPECTED", "Send a form: curl -F file=@NAME. Raw bytes go to PUT /v1/files/NAME."
            )
        if not options.get(b"boundary"):
            raise _invalid("Content-Type names no boundary.")
        callbacks = {
            "on_part_begin": self._on_part,
            "on_header_begin": self._on_header,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_end": self._on_end,
        }
        try:
            return MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        except FormParserError:
            raise _invalid("Its boundary is too long.") from None

    def write(self, block: bytes) -> None:
        self._left -= len(block)
        if self._left < 0:
            raise Problem(
                413, "FORM_TOO_LARGE", "The form is larger than the largest file this server takes."
            )
        try:
            self._parser.write(block)
        except FormParserError:
            raise _invalid(
                "It is no multipart/form-data with the boundary that Content-Type names."
            ) from None

    def finish(self) -> str:
        """The file's name, once all bytes of the form were written."""
        if not self._ended:
            raise _invalid("It ends before its last boundary: a part of it is missing. Send it again.")
        if self._name is None:
            raise _wrong("/file", "MISSING", "The form has no file.")
        return self._name

    # ---- what the parser calls

    def _on_part(self) -> None:
        self._disposition = b""

    def _on_header(self) -> None:
        self._header = self._value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        if options.get(b"name") != b"file" or b"filename" not in options:
            raise _wrong("", "EXTRA_FORBIDDEN", "The form has a part that is not a file of the name `file`.")
        if self._name is not None:
            raise _wrong("/file", "TOO_MANY", "The form has more than one file.")
        self._name = _file_name(options[b"filename"])

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._writer.write(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


def _file_name(sent: bytes) -> str:
    try:
        return TypeAdapter(FileName).validate_python(sent.decode("utf-8", "replace"))
    except ValidationError:
        detail = (
            "A file's name has letters, digits and . _ - only. Rename it with -F "
            "'file=@photo.zip;filename=NAME'."
        )
        errors = [{"pointer": "/file", "code": "INVALID_NAME", "detail": detail}]
        raise Problem(422, "INVALID_NAME", detail, errors=errors) from None


def _invalid(detail: str) -> Problem:
    return Problem(400, "INVALID_FORM", f"The body is not a form that can be read. {detail}")


def _wrong(pointer: str, rule: str, detail: str) -> Problem:
    hint = "Send exactly one file: curl -F file=@NAME."
    error = {"pointer": pointer, "code": rule, "detail": detail, "hint": hint}
    return Problem(422, "INVALID_SPEC", f"{detail} {hint}", errors=[error])
