"""GET URL [RANGE] over HTTP/3 with aioquic: the body goes to the file OUT, what is known of the answer to standard output.

Usage: aioquic_get.py OUT URL [RANGE]. One connection, one request; anything but a clean end of the stream is a failure.
"""

import asyncio
import json
import ssl
import sys
from urllib.parse import urlsplit

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, StreamReset


class Getter(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.alpn = None
        self.http = H3Connection(self._quic)
        self.body = bytearray()
        self.headers = {}
        self.done = asyncio.get_event_loop().create_future()

    def get(self, url, byte_range):
        parts = urlsplit(url)
        headers = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", parts.netloc.encode()),
                   (b":path", parts.path.encode()), (b"user-agent", b"aioquic")]
        if byte_range:
            headers.append((b"range", byte_range.encode()))
        self.http.send_headers(self._quic.get_next_available_stream_id(), headers, end_stream=True)
        self.transmit()

    def fail(self, why):
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.alpn = event.alpn_protocol
        if isinstance(event, StreamReset):
            self.fail(f"the stream was reset with {event.error_code}")
        if isinstance(event, ConnectionTerminated):
            self.fail(f"the connection ended: {event.error_code} {event.reason_phrase}")
        for found in self.http.handle_event(event):
            if isinstance(found, HeadersReceived):
                self.headers.update((name.decode(), value.decode()) for name, value in found.headers)
            elif isinstance(found, DataReceived):
                self.body += found.data
            else:
                continue
            if found.stream_ended and not self.done.done():
                self.done.set_result(None)


async def main(out, url, byte_range):
    parts = urlsplit(url)
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    async with connect(parts.hostname, parts.port, configuration=configuration, create_protocol=Getter) as getter:
        getter.get(url, byte_range)
        await asyncio.wait_for(getter.done, 110)
    with open(out, "wb") as file:
        file.write(getter.body)
    print(json.dumps({"alpn": getter.alpn, "status": getter.headers.get(":status"), "headers": getter.headers}))


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
