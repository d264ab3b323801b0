"""Forms: fields that become arguments, and files that are kept until the handler has ended.

Whatever the size of a file, memory holds a piece of it: above `FormLimits.memory_bytes` it is
written to a temporary file, by a thread, and the client is read no faster than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from framegate.app.answers import HttpRequest, Problem

if TYPE_CHECKING:
    from framegate._http import FormFields
    from framegate.app.signatures import Argument

__all__ = ["FormLimits", "Upload", "with_form"]

FORM: Final = "multipart/form-data"
ENCODED: Final = "application/x-www-form-urlencoded"
READ_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class FormLimits:
    """What a form may be.

    Attributes:
        parts: Fields and files of one form. 1000: each is an object, however short it is.
        field_bytes: Bytes of one field that is no file. 1 MiB: a long text.
        fields_bytes: Bytes of all of them, as they are all in memory.
        file_bytes: Bytes of one file. As many as the disk has, without a limit.
        memory_bytes: Bytes of one file that stay in memory.
        directory: Where longer files are written; the system's place for temporary files, which
            may be memory too.
    """

    parts: int = 1000
    field_bytes: int = 1 << 20
    fields_bytes: int = 4 << 20
    file_bytes: int | None = None
    memory_bytes: int = 1 << 20
    directory: str | None = None


class Upload:
    """A file of a form, for a handler whose argument is annotated with it.

    It is gone when the handler has ended.

    Attributes:
        name: Its name as the client has it. No path: never use it as one.
        media_type: What the client says it is.
        size: Its bytes.
        file: It, open for reading; blocks.
    """

    def __init__(self, name: str, media_type: str | None, limits: FormLimits) -> None:
        self.name = name
        self.media_type = media_type
        self.size: int = 0
        self._limits = limits
        self.file: tempfile.SpooledTemporaryFile[bytes] = tempfile.SpooledTemporaryFile(
            max_size=limits.memory_bytes, dir=limits.directory
        )

    @property
    def _is_on_disk(self) -> bool:
        return bool(getattr(self.file, "_rolled", True))

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._is_on_disk:
            return await asyncio.to_thread(function, *arguments)
        return function(*arguments)

    async def _write(self, data: bytes) -> None:
        self.size += len(data)
        limit = self._limits.file_bytes
        if limit is not None and self.size > limit:
            raise Problem(413, f"a file of the form may have {limit} bytes")
        if not self._is_on_disk and self.size > self._limits.memory_bytes:
            await asyncio.to_thread(self.file.write, data)
        else:
            await self._call(self.file.write, data)

    async def read(self, size: int = -1) -> bytes:
        """Return the next bytes, all that are left without a size; none at the end."""
        data: bytes = await self._call(self.file.read, size)
        return data

    async def seek(self, offset: int) -> None:
        """Go on reading at that byte."""
        await self._call(self.file.seek, offset)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give what is left of it, piece by piece."""
        while data := await self.read(READ_BYTES):
            yield data

    def close(self) -> None:
        """Let go of it."""
        self.file.close()

    def __repr__(self) -> str:
        return f"<Upload {self.name!r} of {self.size} bytes>"


def with_form(
    handler: Callable[..., Any], files: list[Argument], fields: FormFields, limits: FormLimits
) -> Callable[..., Any]:
    """Return a handler whose form is read before it is called.

    Args:
        handler: Takes everything by name.
        files: Its arguments that are files.
        fields: Its arguments that are fields.
        limits: What the form may be.
    """

    async def call(*, framegate_request: HttpRequest, **named: Any) -> Any:
        with contextlib.ExitStack() as stack:
            found, faults, uploads = await _read(framegate_request, fields, limits, stack)
            for argument in files:
                given = uploads.get(argument.wire, [])
                if not given and argument.is_required:
                    faults.append(("form", argument.wire, "is required"))
                elif not given:
                    found[argument.name] = argument.default
                elif argument.is_list:
                    found[argument.name] = given
                elif len(given) == 1:
                    found[argument.name] = given[0]
                else:
                    faults.append(("form", argument.wire, "is there more than once"))
            if faults:
                count = "one thing is" if len(faults) == 1 else f"{len(faults)} things are"
                raise Problem(422, f"{count} wrong with the request", faults=faults)
            return await handler(**named, **found)

    return call


async def _read(
    request: HttpRequest, fields: FormFields, limits: FormLimits, stack: contextlib.ExitStack
) -> tuple[dict[str, Any], list[tuple[str, str, str]], dict[str, list[Upload]]]:
    """Arguments that are fields, what is wrong with them, and files by their names."""
    content_type = request.headers.get("content-type", "")
    essence = content_type.partition(";")[0].strip().lower()
    if essence == ENCODED:
        body = await request.body(limits.fields_bytes)
        try:
            found, faults = fields.read_encoded(body)
        except ValueError as error:
            raise Problem(400, str(error)) from None
        return found, faults, {}
    if essence != FORM:
        raise Problem(415, f"the body has to be {FORM} or {ENCODED}")
    form = _Form(limits, stack)
    await form.read(request, content_type.encode("latin-1"))
    found, faults = fields.read(form.pairs)
    return found, faults, form.uploads


class _Form:
    """A `multipart/form-data` body as it arrives."""

    def __init__(self, limits: FormLimits, stack: contextlib.ExitStack) -> None:
        self._limits = limits
        self._stack = stack
        self._name = ""
        self._field: bytearray | None = None
        self._upload: Upload | None = None
        self._field_bytes = 0
        self.pairs: list[tuple[str, str]] = []
        self.uploads: dict[str, list[Upload]] = {}

    async def read(self, request: HttpRequest, content_type: bytes) -> None:
        from framegate._http import FormReader

        try:
            reader = FormReader(content_type, self._limits.parts)
            async for piece in request.stream():
                await self._take(reader.feed(piece))
            await self._take(reader.feed(b""))
        except ValueError as error:
            raise Problem(400, str(error)) from None

    async def _take(self, events: list[Any]) -> None:
        for event in events:
            if event is None:
                self._end()
            elif isinstance(event, tuple):
                self._begin(*event)
            elif self._upload is not None:
                await self._upload._write(event)
            elif self._field is not None:
                self._add(event)

    def _begin(self, name: str, file: str | None, media_type: str | None) -> None:
        self._name = name
        if file is None:
            self._field = bytearray()
        else:
            self._upload = Upload(file, media_type, self._limits)
            self._stack.callback(self._upload.close)

    def _add(self, data: bytes) -> None:
        assert self._field is not None
        self._field += data
        self._field_bytes += len(data)
        if len(self._field) > self._limits.field_bytes:
            raise Problem(413, f"a field of the form may have {self._limits.field_bytes} bytes")
        if self._field_bytes > self._limits.fields_bytes:
            raise Problem(413, f"all fields may have {self._limits.fields_bytes} bytes")

    def _end(self) -> None:
        if self._upload is not None:
            upload, self._upload = self._upload, None
            # Where nobody chose a file browsers send one without a name.
            if upload.name or upload.size:
                upload.file.seek(0)
                self.uploads.setdefault(self._name, []).append(upload)
        elif self._field is not None:
            field, self._field = self._field, None
            try:
                self.pairs.append((self._name, field.decode()))
            except UnicodeDecodeError:
                raise Problem(400, f"the field {self._name!r} of the form is not UTF-8") from None
