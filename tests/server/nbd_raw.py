# SPDX-License-Identifier: GPL-2.0-or-later
"""nbd_raw - an NBD client that can also say what no decent client says"""

import socket
import struct

OPTION_MAGIC = 0x49484156454F5054
REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
EXTENDED_REQUEST_MAGIC = 0x21E41C71
SIMPLE_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF
EXTENDED_MAGIC = 0x6E8A278C

EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO = 1, 2, 3, 5, 6, 7
STRUCTURED, LIST_META, SET_META, EXTENDED = 8, 9, 10, 11
ACK, SERVER, REP_INFO, META_CONTEXT = 1, 2, 3, 4
UNSUP, INVALID, UNKNOWN, TOO_BIG = 1 << 31 | 1, 1 << 31 | 3, 1 << 31 | 6, 1 << 31 | 9
EXT_HEADER_REQD = 1 << 31 | 10
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = 1, 2, 4, 8, 16, 32
EPERM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP = 1, 22, 28, 75, 95
CHUNK_NONE, CHUNK_DATA, CHUNK_STATUS, CHUNK_STATUS_EXT, CHUNK_ERROR = 0, 1, 5, 6, 0x8001
ALLOCATION, SHARED = b"base:allocation", b"sameblk:shared"


class Gone(Exception):
    """The server ended the connection."""


class Raw:
    def __init__(self, path, seconds=60):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(seconds)
        self.socket.connect(path)
        self.structured = False
        self.extended = False
        self.contexts = {}  # number on the wire: name
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

    def set_contexts(self, name, *contexts):
        replies = self.option_replies(SET_META, string(name) + queries(*contexts))
        assert replies[-1][0] == ACK, replies
        self.contexts = {struct.unpack(">I", p[:4])[0]: p[4:] for k, p in replies[:-1]}

    def go(self, name=b"", structured=True, contexts=(), extended=False):
        self.greet()
        if extended:
            assert self.option_replies(EXTENDED)[-1][0] == ACK
        elif structured:
            assert self.option_replies(STRUCTURED)[-1][0] == ACK
        self.extended, self.structured = extended, structured or extended
        if contexts:
            self.set_contexts(name, *contexts)
        return self.enter(name)

    def enter(self, name=b""):
        replies = self.option_replies(GO, string(name) + b"\0\0")
        assert replies[-1][0] == ACK, replies
        self.size, self.flags = struct.unpack(">QH", replies[0][1][2:12])
        return self

    # Transmission

    def request(self, command, off=0, length=0, flags=0, payload=b"", magic=None):
        """Extended if that was agreed upon; a write's payload is then announced."""
        self.cookie += 1
        if self.extended and command == WRITE:
            flags |= PAYLOAD_LEN
        self.send(self.header(command, off, length, flags, magic) + payload)
        return self.cookie

    def header(self, command, off, length, flags, magic=None):
        if self.extended:
            return struct.pack(">IHHQQQ", magic or EXTENDED_REQUEST_MAGIC, flags, command,
                               self.cookie, off, length)
        return struct.pack(">IHHQQI", magic or REQUEST_MAGIC, flags, command, self.cookie, off,
                           length)

    def chunk(self, magic):
        """The rest of one chunk's header, and its payload: (flags, kind, cookie, payload)."""
        if self.extended:
            assert magic == EXTENDED_MAGIC, hex(magic)
            flags, kind, cookie, self.reply_off, size = struct.unpack(">HHQQQ", self.receive(28))
        else:
            assert magic == CHUNK_MAGIC, hex(magic)
            flags, kind, cookie, size = struct.unpack(">HHQI", self.receive(16))
        assert size <= 64 << 20, size
        return flags, kind, cookie, self.receive(size)

    def reply(self, length=0):
        """One whole answer to a request, for READ of that length in a simple reply: (cookie, error,
        data), where data is {offset: bytes}, or the extents of a block status: a list of them where
        one context was asked for, else {context: list}."""
        error, data, extents = 0, {}, {}
        while True:
            magic, = struct.unpack(">I", self.receive(4))
            if magic == SIMPLE_MAGIC and not self.extended:
                error, cookie = struct.unpack(">IQ", self.receive(12))
                if length and not error:
                    data[None] = self.receive(length)
                return cookie, error, data
            flags, kind, cookie, payload = self.chunk(magic)
            if kind == CHUNK_DATA:
                data[struct.unpack(">Q", payload[:8])[0]] = payload[8:]
            elif kind in (CHUNK_STATUS, CHUNK_STATUS_EXT):
                assert (kind == CHUNK_STATUS_EXT) == self.extended, kind
                name, found = self.status(payload)
                assert name not in extents, name
                extents[name] = found
            elif kind == CHUNK_ERROR:
                error, = struct.unpack(">I", payload[:4])
            else:
                assert kind == CHUNK_NONE and not payload, kind
            if flags & 1:
                if extents:
                    assert sorted(extents) == sorted(self.contexts.values()), extents
                    data = found if len(extents) == 1 else extents
                return cookie, error, data

    def status(self, payload):
        """One context's chunk: (name, [(length, flags)...])."""
        number, = struct.unpack(">I", payload[:4])
        if not self.extended:
            assert len(payload) > 4 and len(payload) % 8 == 4, len(payload)
            return self.contexts[number], list(struct.iter_unpack(">II", payload[4:]))
        count, = struct.unpack(">I", payload[4:8])
        assert len(payload) == 8 + 16 * count > 8, (len(payload), count)
        return self.contexts[number], list(struct.iter_unpack(">QQ", payload[8:]))

    def call(self, command, off=0, length=0, flags=0, payload=b""):
        """(error, data) of one request, alone."""
        cookie = self.request(command, off, length, flags, payload)
        simple = length if command == READ and not self.structured else 0
        answered, error, data = self.reply(simple)
        assert answered == cookie, (answered, cookie)
        assert not self.extended or self.reply_off == off, (self.reply_off, off)
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


def queries(*names):
    return struct.pack(">I", len(names)) + b"".join(string(name) for name in names)
