# SPDX-License-Identifier: GPL-2.0-or-later
"""nbd_raw - an NBD client that can also say what no decent client says"""

import socket
import struct

OPTION_MAGIC = 0x49484156454F5054
REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF

EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO = 1, 2, 3, 5, 6, 7
STRUCTURED, LIST_META, SET_META = 8, 9, 10
ACK, SERVER, REP_INFO, META_CONTEXT = 1, 2, 3, 4
UNSUP, INVALID, UNKNOWN, TOO_BIG = 1 << 31 | 1, 1 << 31 | 3, 1 << 31 | 6, 1 << 31 | 9
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE = 1, 2, 4, 8
EPERM, EINVAL, ENOSPC, EOVERFLOW = 1, 22, 28, 75
CHUNK_NONE, CHUNK_DATA, CHUNK_STATUS, CHUNK_ERROR = 0, 1, 5, 0x8001


class Gone(Exception):
    """The server ended the connection."""


class Raw:
    def __init__(self, path, seconds=60):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(seconds)
        self.socket.connect(path)
        self.structured = False
        self.cookie = 0

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, length):
        data = bytearray()
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            if not piece:
                raise Gone
            data += piece
        return bytes(data)

    def is_gone(self):
        """Whether nothing more comes."""
        try:
            return not self.socket.recv(1)
        except ConnectionError:
            return True

    # Handshake

    def greet(self, flags=3):
        greeting = self.receive(18)
        assert greeting[:16] == b"NBDMAGICIHAVEOPT", greeting
        self.send(struct.pack(">I", flags))
        return self

    def option(self, option, data=b""):
        self.send(struct.pack(">QII", OPTION_MAGIC, option, len(data)) + data)

    def option_replies(self, option, data=b""):
        """All replies to an option: a list of (type, payload); the last is ACK or an error."""
        self.option(option, data)
        replies = []
        while True:
            magic, about, kind, length = struct.unpack(">QIII", self.receive(20))
            assert (magic, about) == (REPLY_MAGIC, option), (magic, about)
            replies.append((kind, self.receive(length)))
            if kind == ACK or kind >> 31:
                return replies

    def go(self, name=b"", structured=True, context=False):
        self.greet()
        if structured:
            assert self.option_replies(STRUCTURED)[-1][0] == ACK
            self.structured = True
        if context:
            self.option_replies(SET_META, string(name) + struct.pack(">I", 1) +
                                string(b"base:allocation"))
        replies = self.option_replies(GO, string(name) + b"\0\0")
        assert replies[-1][0] == ACK, replies
        self.size, self.flags = struct.unpack(">QH", replies[0][1][2:12])
        return self

    # Transmission

    def request(self, command, off=0, length=0, flags=0, payload=b"", magic=REQUEST_MAGIC):
        self.cookie += 1
        self.send(struct.pack(">IHHQQI", magic, flags, command, self.cookie, off, length) + payload)
        return self.cookie

    def reply(self, length=0):
        """One whole answer to a request, for READ of that length in a simple reply: (cookie, error,
        data), where data is {offset: bytes}, or the extents of a block status."""
        error, data = 0, {}
        while True:
            magic, = struct.unpack(">I", self.receive(4))
            if magic == SIMPLE_MAGIC:
                error, cookie = struct.unpack(">IQ", self.receive(12))
                if length and not error:
                    data[None] = self.receive(length)
                return cookie, error, data
            assert magic == CHUNK_MAGIC, hex(magic)
            flags, kind, cookie, size = struct.unpack(">HHQI", self.receive(16))
            payload = self.receive(size)
            if kind == CHUNK_DATA:
                data[struct.unpack(">Q", payload[:8])[0]] = payload[8:]
            elif kind == CHUNK_STATUS:
                data = [struct.unpack(">II", payload[i:i + 8]) for i in range(4, size, 8)]
            elif kind == CHUNK_ERROR:
                error, = struct.unpack(">I", payload[:4])
            else:
                assert kind == CHUNK_NONE, kind
            if flags & 1:
                return cookie, error, data

    def call(self, command, off=0, length=0, flags=0, payload=b""):
        """(error, data) of one request, alone."""
        cookie = self.request(command, off, length, flags, payload)
        simple = length if command == READ and not self.structured else 0
        answered, error, data = self.reply(simple)
        assert answered == cookie, (answered, cookie)
        return error, data

    def read(self, off, length, flags=0):
        error, data = self.call(READ, off, length, flags)
        assert error == 0, error
        return joined(data)

    def write(self, off, data, flags=0):
        return self.call(WRITE, off, len(data), flags, data)[0]


def joined(data):
    return b"".join(data[off] for off in (sorted(data) if None not in data else data))


def string(text):
    return struct.pack(">I", len(text)) + text
