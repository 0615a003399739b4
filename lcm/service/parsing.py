"""Requests as they arrive: which bytes are one request, and which are none.

Knows waitress's parser, and refuses what it would let pass though two readers could understand it in two ways (request
smuggling), and what would cost too much to read. Refuses to know connections and what is answered.
"""

import re

from waitress.parser import HTTPRequestParser, ParsingError, TransferEncodingNotImplemented
from waitress.utilities import BadRequest

MAX_HEADERS = 32 << 10  # bytes of a request line with its headers; beyond, 431
CHUNKED_SLICE = 4 << 10  # bytes given at once to waitress's chunk reader, whose time grows with the square of it
MAX_CHUNK_LINE = 4 << 10  # bytes of a chunk's size line, and of the trailer; waitress has no limit of its own
# A header that goes on in the next line, or a control character in the request line.
REFUSED = re.compile(rb"\r\n[ \t]|\A[^\r\n]*[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]")


class Parser(HTTPRequestParser):
    """Reads one request; `error` says why it was refused."""

    def parse_header(self, header_plus: bytes) -> None:
        if REFUSED.search(header_plus):
            raise ParsingError("a folded line, or a control character in the request line")
        try:
            super().parse_header(header_plus)
        except TransferEncodingNotImplemented as error:
            raise ParsingError(str(error)) from None  # the client's mistake: 400, not 501
        if self.version not in ("1.0", "1.1"):
            raise ParsingError("the protocol is neither HTTP/1.0 nor HTTP/1.1")
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("a length and chunks")
        if self.version == "1.0" and "TRANSFER_ENCODING" in self.headers:
            raise ParsingError("chunks in HTTP/1.0")

    def received(self, data: bytes) -> int:
        consumed = super().received(data[:CHUNKED_SLICE] if self.chunked else data)
        if self.chunked and not self.completed:
            line = max(len(self.body_rcv.control_line), len(self.body_rcv.trailer))
            if line > MAX_CHUNK_LINE:
                self.error, self.completed = BadRequest("a chunk's line or the trailer is too long"), True
        if self.error:
            self.expect_continue = False  # else waitress would ask for the body that it has refused
        return consumed

    @property
    def held(self) -> int:
        """Bytes of the body in memory."""
        body = self.body_rcv  # a thread may let go of it meanwhile
        return len(body) if body is not None else 0

    def close(self) -> None:
        super().close()
        self.body_rcv = None
