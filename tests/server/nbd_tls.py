#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""nbd_tls - NBD over TCP and under TLS: who is served, who is not, and that nothing gets mixed up

    tests/server/nbd_tls.py [TEST...]

A rig like those in tests/rigs, which see. Keys are made by each test that needs them.
"""

import os
import random
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
import warnings

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "rigs"))

import nbd_raw as n  # noqa: E402
import rig as r  # noqa: E402
from rig import MIB, expect, expect_equal  # noqa: E402

SIZE = 96 * MIB
TLS_REQD = 1 << 31 | 5
STALLED = 12
HANDSHAKE_SECONDS = 10
HANDSHAKES = 60


# Keys


class Keys:
    """Folders as libnbd wants them: `good`; `other`, of another authority; `none`, which can check
    the server but has nothing to show; `server`, which is for servers; `revoked`."""

    def __init__(self, rig):
        r.need("certtool")
        self.rig = rig
        self.top = rig.path("keys")
        self.serial = 0
        for name in ("good", "other", "none", "server", "revoked"):
            os.makedirs(self.file(name, ""))
        for name in ("good", "other"):
            self.key(name, "ca")
            self.certtool("--generate-self-signed",
                          "--load-privkey", self.file(name, "ca-key.pem"),
                          "--outfile", self.file(name, "ca-cert.pem"),
                          text="cn = authority\nca\ncert_signing_key\ncrl_signing_key\n")
        self.sign("good", "good", "server", "server")
        self.sign("good", "good", "client", "client")
        self.sign("other", "other", "client", "client")
        self.sign("good", "server", "client", "server")
        self.sign("good", "revoked", "client", "client")
        for name in ("other", "none", "server", "revoked"):
            with open(self.file("good", "ca-cert.pem"), "rb") as f:
                certificate = f.read()
            with open(self.file(name, "ca-cert.pem"), "wb") as f:
                f.write(certificate)

    def file(self, folder, name):
        return os.path.join(self.top, folder, name)

    def certtool(self, *args, text=""):
        template = os.path.join(self.top, "template")
        with open(template, "w", encoding="ascii") as f:
            f.write(text + "expiration_days = 10\n")
        r.run("certtool", "--template", template, *args)

    def key(self, folder, who):
        self.certtool("--generate-privkey", "--key-type", "ecdsa", "--outfile",
                      self.file(folder, who + "-key.pem"))

    def sign(self, authority, folder, who, purpose):
        self.serial += 1
        self.key(folder, who)
        self.certtool("--generate-certificate",
                      "--load-ca-certificate", self.file(authority, "ca-cert.pem"),
                      "--load-ca-privkey", self.file(authority, "ca-key.pem"),
                      "--load-privkey", self.file(folder, who + "-key.pem"),
                      "--outfile", self.file(folder, who + "-cert.pem"),
                      text=f"cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\n"
                           f"ip_address = ::1\nserial = {self.serial}\nsigning_key\n"
                           f"tls_www_{purpose}\n")

    def revoke(self):
        self.certtool("--generate-crl",
                      "--load-ca-certificate", self.file("good", "ca-cert.pem"),
                      "--load-ca-privkey", self.file("good", "ca-key.pem"),
                      "--load-certificate", self.file("revoked", "client-cert.pem"),
                      "--outfile", self.file("good", "ca-crl.pem"),
                      text="crl_next_update = 10\ncrl_number = 1\n")

    def context(self, folder="good"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.file(folder, "ca-cert.pem"))
        if os.path.exists(self.file(folder, "client-cert.pem")):
            context.load_cert_chain(self.file(folder, "client-cert.pem"),
                                    self.file(folder, "client-key.pem"))
        return context


def psk_file(rig, name, *lines):
    with open(rig.path(name), "w", encoding="ascii") as f:
        f.write("".join(line + "\n" for line in lines))
    return rig.path(name)


# Servers and clients


def serve(rig, *options, create=("--size", SIZE)):
    """A server on a Unix socket and on a free port of localhost."""
    server = rig.server(rig.create(*create), "-p", 0, "-i", "localhost", "-v", *options)
    server.tcp = [uri for uri in server.json("status")["exports"] if "unix" not in uri][0]
    server.port = urllib.parse.urlsplit(server.tcp).port
    return server


def serve_x509(rig, *options):
    keys = Keys(rig)
    server = serve(rig, "--tls-certificates", keys.file("good", ""), *options)
    return server, keys


def uris_x509(server, keys, folder="good"):
    """The same server over TCP and over its Unix socket."""
    query = "tls-certificates=" + os.path.join(keys.top, folder)
    # The server's name cannot be checked where there is none.
    return (f"nbds://localhost:{server.port}/?{query}",
            f"nbds+unix:///?socket={server.nbd}&{query}&tls-verify-peer=false")


def uris_psk(server, path, user="alice"):
    return (f"nbds://{user}@localhost:{server.port}/?tls-psk-file={path}",
            f"nbds+unix://{user}@/?socket={server.nbd}&tls-psk-file={path}")


def connect(server):
    return socket.create_connection(("localhost", server.port), timeout=60)


class Raw(n.Raw):
    """Over any connected socket."""

    def __init__(self, connected):
        self.socket = connected
        self.structured = self.extended = False
        self.contexts = {}
        self.cookie = 0

    def receive(self, length):
        try:
            return super().receive(length)
        except (ssl.SSLError, ConnectionError) as why:
            raise n.Gone(why) from None

    def starttls(self, context):
        """After greet(); all that follows is encrypted."""
        assert self.option_replies(n.STARTTLS) == [(n.ACK, b"")]
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost",
                                          suppress_ragged_eofs=False)
        return self

    def enter_structured(self):
        assert self.option_replies(n.STRUCTURED)[-1][0] == n.ACK
        self.structured = True
        return self.enter()


def decent(server, context):
    return Raw(connect(server)).greet().starttls(context).enter_structured()


def finish(server, context):
    """A new client is served, and the server stops cleanly."""
    raw = decent(server, context)
    expect_equal(raw.write(0, b"still here" * 100), 0, "a write at the end")
    expect_equal(raw.read(0, 1000), b"still here" * 100, "a read at the end")
    raw.close()
    server.stop()
    r.offline_check(server.store)


def pattern(seed, length):
    return random.Random(seed).randbytes(length)


def is_served(uri):
    """Whether nbdinfo gets in; it ends either way."""
    return r.run("nbdinfo", "--size", uri, ok=None, seconds=60).returncode == 0


def copies(rig, uris):
    """An image in through each, and back out through each, is what it was."""
    r.need("nbdcopy")
    image = rig.path("image")
    for seed, uri in enumerate(uris):
        with open(image, "wb") as f:
            f.write(pattern(seed, 64 * MIB))
        r.run("nbdcopy", image, uri)
        for back in uris:
            r.run("nbdcopy", back, rig.path("back"))
            r.run("cmp", "-n", 64 * MIB, image, rig.path("back"))


# Clients of others


def test_x509_copies(rig):
    """nbdcopy, over TCP and a Unix socket, several connections: what goes in comes out."""
    server, keys = serve_x509(rig, "-w", 2)
    expect(server.tcp == f"nbds://localhost:{server.port}/", server.tcp)
    for uri in uris_x509(server, keys):
        expect("with TLS" in r.run("nbdinfo", uri).stdout, "nbdinfo sees no TLS")
    copies(rig, uris_x509(server, keys))
    finish(server, keys.context())


def test_psk_copies(rig):
    """The same with keys in a file, also of a user whose name is written in hex."""
    alice, bob = ":" + "A1" * 32, "bob:" + "0b" * 16
    given = psk_file(rig, "given", bob, "", "alice2:" + "33" * 32, "#616c696365" + alice)
    keys = psk_file(rig, "psk", "alice" + alice, bob)
    server = serve(rig, "--tls-psk", given)
    copies(rig, uris_psk(server, keys))
    for uri in uris_psk(server, keys, "bob"):
        expect(is_served(uri), "bob is not served")
    server.stop()
    r.offline_check(server.store)


def qemu_options(server, kind, keys):
    return ["--object", f"tls-creds-{kind},id=tls,endpoint=client,dir={keys}"
            + (",username=alice" if kind == "psk" else "")], \
        f"driver=nbd,host=localhost,port={server.port},tls-creds=tls"


def qemu(rig, server, kind, keys):
    objects, image = qemu_options(server, kind, keys)
    with open(rig.path("image"), "wb") as f:
        f.write(pattern(9, 64 * MIB))
    r.run("qemu-img", "convert", *objects, "-n", "-f", "raw", "--target-image-opts",
          rig.path("image"), image)
    r.run("qemu-img", "convert", *objects, "--image-opts", "-O", "raw", image, rig.path("back"))
    r.run("cmp", "-n", 64 * MIB, rig.path("image"), rig.path("back"))
    done = r.run("qemu-io", *objects, "--image-opts", image, "-c", "write -P 7 12345 70000",
                 "-c", "read -P 7 12345 70000", "-c", "flush", "-c", "discard 4M 1M",
                 "-c", "read -P 0 4M 1M")
    expect("failed" not in done.stdout, done.stdout)


def test_qemu(rig):
    """qemu's client, which is not libnbd, with both kinds of keys."""
    r.need("qemu-img", "qemu-io")
    server, keys = serve_x509(rig)
    qemu(rig, server, "x509", keys.file("good", ""))
    server.stop()
    os.mkdir(rig.path("psk"))
    path = psk_file(rig, "psk/keys.psk", "alice:" + "a1" * 32)
    server.options[server.options.index("--tls-certificates"):] = ["--tls-psk", path]
    server.start()
    server.port = urllib.parse.urlsplit(server.json("status")["exports"][1]).port
    qemu(rig, server, "psk", rig.path("psk"))
    server.stop()
    r.offline_check(server.store)


def test_nbdkit_and_fio(rig):
    """nbdkit as a client, for nbdcopy and for fio (which verifies) behind it: fio itself cannot be
    told of keys."""
    r.need("nbdkit", "nbdcopy", "fio")
    server, keys = serve_x509(rig)
    places = (["hostname=localhost", f"port={server.port}"],
              ["socket=" + server.nbd, "tls-verify=false"])
    for seed, place in enumerate(places):
        with open(rig.path("image"), "wb") as f:
            f.write(pattern(seed, 64 * MIB))
        r.run("nbdkit", "-U", "-", "nbd", *place, "tls=require",
              "tls-certificates=" + keys.file("good", ""), "--run",
              f"nbdcopy {rig.path('image')} $uri && nbdcopy $uri {rig.path('back')} && "
              "fio --name=job --ioengine=nbd --uri=$uri --rw=randwrite --bs=16k --iodepth=32 "
              "--size=32M --verify=crc32c", cwd=rig.folder)
        r.run("cmp", "-n", 64 * MIB, rig.path("image"), rig.path("back"))
    finish(server, keys.context())


# Who is not served


def test_strangers(rig):
    """Who cannot prove what is asked for is refused, over either socket, and does no harm."""
    server, keys = serve_x509(rig)
    expect(is_served(uris_x509(server, keys, "revoked")[0]), "revoked too early")
    server.stop()
    keys.revoke()
    server.start()
    server.port = urllib.parse.urlsplit(server.json("status")["exports"][1]).port
    for folder in ("other", "none", "server", "revoked"):
        for uri in uris_x509(server, keys, folder):
            expect(not is_served(uri), f"{folder} is served")
    expect("NOT trusted" in server.log() and "revoked" in server.log(), "the log says nothing")
    for uri in uris_x509(server, keys):
        expect(is_served(uri), "the good one is not served")
    finish(server, keys.context())


def test_no_verify_peer(rig):
    """--tls-no-verify-peer: no certificate is asked for, and the server still proves itself."""
    server, keys = serve_x509(rig, "--tls-no-verify-peer")
    os.remove(keys.file("good", "client-cert.pem"))
    for uri in uris_x509(server, keys, "none") + uris_x509(server, keys, "other"):
        expect(is_served(uri), "not served")
    with open(keys.file("none", "ca-cert.pem"), "wb") as f:
        # Another authority's: this server is not the one that is wanted.
        keys.key("none", "ca")
        f.close()
        keys.certtool("--generate-self-signed", "--load-privkey", keys.file("none", "ca-key.pem"),
                      "--outfile", keys.file("none", "ca-cert.pem"),
                      text="cn = stranger\nca\ncert_signing_key\n")
    expect(not is_served(uris_x509(server, keys, "none")[0]), "the client believes anybody")
    finish(server, keys.context("other"))


def test_psk_strangers(rig):
    """A wrong key and an unknown user look the same from outside, and are refused."""
    good = psk_file(rig, "good", "alice:" + "a1" * 32)
    bad = psk_file(rig, "bad", "alice:" + "a2" * 32, "eve:" + "a1" * 32)
    server = serve(rig, "--tls-psk", good)
    alerts = set()
    for user in ("alice", "eve"):
        for uri in uris_psk(server, bad, user):
            done = r.run("nbdinfo", "--size", uri, ok=None, seconds=60)
            expect(done.returncode != 0, f"{user} is served with {bad}")
            alerts.add(done.stderr.split("nbd_connect_uri")[-1])
    expect_equal(len(alerts), 1, "what clients are told")
    expect(is_served(uris_psk(server, good)[0]), "the good one is not served")
    server.stop()


def test_plain_clients(rig):
    """Without TLS: TCP tells nothing but that TLS is needed, a Unix socket serves unless told
    otherwise."""
    server, keys = serve_x509(rig, "-e", "secret")
    raw = Raw(connect(server)).greet()
    for option, data in ((n.GO, n.string(b"secret") + b"\0\0"), (n.INFO, b"malformed"),
                         (n.LIST, b""), (n.STRUCTURED, b""), (n.EXTENDED, b""), (77, b"x"),
                         (n.SET_META, bytes(40000))):
        replies = raw.option_replies(option, data)
        expect_equal([kind for kind, _ in replies], [TLS_REQD], f"option {option}")
        expect(b"STARTTLS" in replies[0][1] and b"secret" not in replies[0][1], str(replies))
    raw.option(n.EXPORT_NAME, b"secret")
    expect(raw.is_gone(), "EXPORT_NAME did not end the connection")
    done = r.run("nbdinfo", server.tcp.replace("nbds:", "nbd:"), ok=(1,))
    expect("TLS" in done.stdout + done.stderr or "refused" in done.stderr
           or "not supported" in done.stderr, done.stderr)
    # Plain first and TLS then, on one connection.
    raw = Raw(connect(server)).greet()
    raw.option_replies(n.LIST)
    raw.starttls(keys.context())
    expect_equal(raw.option_replies(n.STARTTLS)[0][0], n.INVALID, "STARTTLS again")
    expect_equal(raw.option_replies(n.LIST)[0], (n.SERVER, n.string(b"secret")), "LIST")
    raw.close()
    expect_equal(n.Raw(server.nbd).go(b"secret").write(0, b"x"), 0, "over the Unix socket")
    server.stop()
    server.start("--tls-required")
    raw = n.Raw(server.nbd).greet()
    expect_equal(raw.option_replies(n.LIST)[0][0], TLS_REQD, "with --tls-required")
    expect(server.json("status")["exports"][0].startswith("nbds+unix:"), "the URI")
    server.stop()


# Attacks


def test_injected_plain_text(rig):
    """What somebody put behind STARTTLS before TLS began is not taken for the client's."""
    server, keys = serve_x509(rig)
    starttls = struct.pack(">QII", n.OPTION_MAGIC, n.STARTTLS, 0)
    for injected in (struct.pack(">QII", n.OPTION_MAGIC, n.LIST, 0), b"\x16", bytes(1000)):
        for together in (True, False):
            raw = Raw(connect(server)).greet()
            raw.send(starttls + injected if together else starttls)
            raw.receive(20)
            try:
                if not together:
                    raw.send(injected)
                    raw.socket.shutdown(socket.SHUT_WR)
                context = keys.context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                raw.socket = context.wrap_socket(raw.socket)
                raw.option_replies(n.LIST)
                raise r.Failure(f"served behind {injected[:20]!r}, together {together}")
            except (ssl.SSLError, ConnectionError, n.Gone, OSError):
                raw.close()
    r.wait_until(lambda: "plain text behind STARTTLS" in server.log(), "a line in the log")
    finish(server, keys.context())


def test_garbage(rig):
    """Random bytes for a handshake, and in the middle of the stream: the connection ends."""
    server, keys = serve_x509(rig)
    rng = random.Random(1)
    for i in range(60):
        raw = Raw(connect(server)).greet()
        raw.option_replies(n.STARTTLS)
        raw.send(b"\x16\x03\x01" * (i % 2) + rng.randbytes(rng.randrange(1, 2000)))
        raw.close()
    for i in range(20):
        raw = decent(server, keys.context())
        raw.request(n.READ, 0, 100000)
        raw.request(n.WRITE, 0, 100000, 0, bytes(50000))
        plain = socket.socket(fileno=os.dup(raw.socket.fileno()))
        record = rng.randbytes(500)
        plain.send(b"\x17\x03\x03" + struct.pack(">H", 500) + record if i % 2 else record)
        plain.settimeout(60)
        try:
            while plain.recv(100000):
                pass
        except ConnectionError:
            pass
        plain.close()
        raw.close()
    finish(server, keys.context())


def test_versions(rig):
    """TLS 1.2 and 1.3 are served, older ones are not."""
    server, keys = serve_x509(rig)
    warnings.simplefilter("ignore", DeprecationWarning)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = keys.context()
        context.minimum_version = context.maximum_version = version
        raw = decent(server, context)
        expect_equal(raw.socket.version(), version.name.replace("_", "."), "the version")
        expect_equal(raw.write(5, b"hello"), 0, "a write")
        expect_equal(raw.read(5, 5), b"hello", "a read")
        raw.close()
    context = keys.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    try:
        decent(server, context)
        raise r.Failure("TLS 1.1 is served")
    except (ssl.SSLError, ConnectionError):
        pass
    finish(server, keys.context())


def relay(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def test_renegotiation(rig):
    """A client of TLS 1.2 that begins another handshake is let go."""
    r.need("openssl")
    server, keys = serve_x509(rig)
    # Speaks NBD up to STARTTLS, and hands what follows on.
    listening = socket.create_server(("127.0.0.1", 0))
    client = rig.spawn("openssl", "s_client", "-tls1_2", "-legacy_renegotiation", "-connect",
                       "127.0.0.1:%d" % listening.getsockname()[1],
                       "-cert", keys.file("good", "client-cert.pem"),
                       "-key", keys.file("good", "client-key.pem"),
                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    raw = Raw(connect(server)).greet()
    raw.option_replies(n.STARTTLS)
    near = listening.accept()[0]
    for ends in ((near, raw.socket), (raw.socket, near)):
        threading.Thread(target=relay, args=ends, daemon=True).start()
    output = b""
    while b"Verify return code" not in output:
        piece = os.read(client.stdout.fileno(), 65536)
        expect(piece, "openssl ended: " + output.decode("utf-8", "replace")[-500:])
        output += piece
    client.stdin.write(b"R\n")
    client.stdin.flush()
    r.wait_until(lambda: re.search("connection ended: TLS: .*rehandshake", server.log(), re.I),
                 "the end of the connection")
    client.wait(60)
    finish(server, keys.context())


def test_stalled_handshake(rig):
    """Who stops in the middle of TLS's handshake is dropped in time; others are served."""
    server, keys = serve_x509(rig)
    memory = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        keys.context().wrap_bio(*memory, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = memory[1].read()
    stalled = []
    for i in range(STALLED):
        raw = Raw(connect(server)).greet()
        raw.option_replies(n.STARTTLS)
        raw.send(hello[:len(hello) * i // (STALLED - 1)])
        stalled.append(raw)
    start = time.monotonic()
    served = decent(server, keys.context())
    for raw in stalled:
        raw.socket.settimeout(0.1)
        while True:
            expect_equal(served.write(0, b"x"), 0, "the decent one")
            try:
                if not raw.socket.recv(65536):
                    break
            except TimeoutError:
                expect(time.monotonic() - start < 30 * r.slowness(), "it is not dropped")
            except ConnectionError:
                break
    took = time.monotonic() - start
    expect(HANDSHAKE_SECONDS / 2 < took < 2 * HANDSHAKE_SECONDS * r.slowness(),
           f"dropped after {took:.0f} s")
    served.close()
    finish(server, keys.context())


def thread_seconds(server):
    """Of processor, by each thread's name."""
    folder = f"/proc/{server.process.pid}/task"
    seconds = {}
    for task in os.listdir(folder):
        with open(os.path.join(folder, task, "schedstat"), encoding="ascii") as f:
            ns = int(f.read().split()[0])
        with open(os.path.join(folder, task, "comm"), encoding="ascii") as f:
            seconds[f.read().strip()] = ns / 1e9
    return seconds


def test_handshakes_take_no_worker(rig):
    """What strangers make the server compute is not the time of its clients."""
    server, keys = serve_x509(rig)
    context = keys.context("other")
    before = thread_seconds(server)
    for _ in range(HANDSHAKES):
        stranger = Raw(connect(server)).greet()
        try:
            stranger.starttls(context)
            stranger.receive(1)
        except (ssl.SSLError, ConnectionError, n.Gone):
            pass
        stranger.close()
    after = thread_seconds(server)
    worker = after["worker-0"] - before["worker-0"]
    others = sum(after.values()) - sum(before.values()) - worker
    rig.note(f"{HANDSHAKES} handshakes: {worker * 1000:.0f} ms of the worker, "
             f"{others * 1000:.0f} ms of others")
    # A connection costs the worker some calls of the kernel, about as much as its handshake.
    expect(others > worker / 4, "the worker computes them")
    finish(server, keys.context())


# Data


def requests(rng, length):
    off = rng.randrange(length)
    return off, min(length - off, rng.choice((1, 500, 4096, 16384, 65537, 300000, 2 * MIB)))


def test_random_requests(rig):
    """Reads and writes of all sizes, records cut anywhere, compare equal; also with --direct."""
    for options in ((), ("--direct",)):
        server, keys = serve_x509(rig, *options) if not options else (server, keys)
        if options:
            server.start(*options)
            server.port = urllib.parse.urlsplit(server.json("status")["exports"][1]).port
        rng = random.Random(7)
        image = bytearray(16 * MIB)
        raw = decent(server, keys.context())
        raw.call(n.WRITE_ZEROES, 0, len(image))
        for i in range(150):
            off, length = requests(rng, len(image))
            if rng.random() < 0.5:
                data = rng.randbytes(length)
                expect_equal(raw.write(off, data), 0, f"write {i}")
                image[off:off + length] = data
            else:
                expect(raw.read(off, length) == image[off:off + length], f"read {i} {off}+{length}")
        expect(raw.read(0, len(image)) == image, "the whole")
        raw.close()
        server.stop()
    r.offline_check(server.store)


def test_pipelined(rig):
    """Hundreds of requests, small and large, without a look at the answers: those fill the socket
    and wait inside TLS, and none is lost, doubled or torn."""
    server, keys = serve_x509(rig, "--buffer-memory", "2M")
    rng = random.Random(8)
    image = pattern(8, 16 * MIB)
    raw = decent(server, keys.context())
    for off in range(0, len(image), 4 * MIB):
        expect_equal(raw.write(off, image[off:off + 4 * MIB]), 0, "a write")
    wanted, left = {}, {}
    for _ in range(250):
        off, length = requests(rng, len(image))
        cookie = raw.request(n.READ, off, length)
        wanted[cookie], left[cookie] = range(off, off + length), length
    while left:
        flags, kind, cookie, payload = raw.chunk(struct.unpack(">I", raw.receive(4))[0])
        expect_equal(kind, n.CHUNK_DATA, f"request {cookie}: kind of chunk")
        at, size = struct.unpack(">Q", payload[:8])[0], len(payload) - 8
        expect(at in wanted[cookie] and at + size <= wanted[cookie].stop, f"{cookie}: out of range")
        expect(payload[8:] == image[at:at + size], f"request {cookie}: wrong data at {at}")
        left[cookie] -= size
        if flags & 1:
            expect_equal(left.pop(cookie), 0, f"request {cookie}: bytes missing")
    raw.close()
    finish(server, keys.context())


def test_death_at_any_point(rig):
    """Clients that go away in the middle of a record, a payload, a reply, with and without bye."""
    server, keys = serve_x509(rig)
    for bye in (True, False):
        for cut in (1, 28, 29, 20000, MIB, 3 * MIB + 27):
            raw = decent(server, keys.context())
            whole = raw.header(n.WRITE, 8 * MIB, 3 * MIB, 0) + b"w" * (3 * MIB)
            raw.send(whole[:cut])
            raw.request(n.READ, 0, 32 * MIB) if cut > 3 * MIB else None
            end(raw, bye)
        for taken in (0, 1, 1000, 2 * MIB):
            raw = decent(server, keys.context())
            for _ in range(3):
                raw.request(n.READ, 0, 32 * MIB)
            raw.receive(taken)
            end(raw, bye)
    finish(server, keys.context())


def end(raw, bye):
    if bye:
        try:
            raw.socket.settimeout(0.2)
            raw.socket.unwrap()
        except (OSError, ValueError):
            pass
    raw.close()


def test_goodbye(rig):
    """DISC and SIGTERM: what was asked is answered, and TLS ends as it should, not as if cut."""
    server, keys = serve_x509(rig)
    raw = decent(server, keys.context())
    for i in range(20):
        raw.request(n.WRITE, i * 4096, 4096, 0, bytes([i]) * 4096)
    raw.request(n.DISC)
    expect_equal(sorted(raw.reply()[0] for _ in range(20)), list(range(1, 21)), "the answers")
    # An end without goodbye would be an error here.
    expect_equal(raw.socket.recv(1), b"", "after DISC")
    raw.close()
    raw = decent(server, keys.context())
    expect_equal(raw.read(19 * 4096, 1), b"\x13", "a read")
    server.stop()
    expect_equal(raw.socket.recv(1), b"", "after SIGTERM")
    r.offline_check(server.store)


# Starting


def test_insecure_tcp(rig):
    """Plain TCP has to be asked for; a name gives all of its addresses, each of which is served."""
    store = rig.create("--size", SIZE)
    arguments = [r.SAMEBLKD, "-c", rig.path("x.ctl")]
    done = r.run(*arguments, "-p", 0, store, ok=(2,))
    expect("--insecure-tcp" in done.stderr and "--tls-certificates" in done.stderr, done.stderr)
    server = serve(rig, "--insecure-tcp", create=("--size", SIZE, "--force"))
    expect_equal(server.tcp, f"nbd://localhost:{server.port}/", "the URI")
    served = 0
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        plain = socket.socket(family)
        plain.settimeout(60)
        try:
            plain.connect((address, server.port))
        except OSError:
            if family == socket.AF_INET:
                raise
            rig.note("no IPv6 here")
            continue
        raw = Raw(plain).go()
        expect_equal(raw.write(served, b"hello"), 0, "a write")
        raw.close()
        served += 1
    replies = Raw(connect(server)).greet().option_replies(n.STARTTLS)
    expect_equal(replies[0][0], n.UNSUP, "STARTTLS")
    keepalive(rig, server)
    other = rig.create("--size", MIB, name="other")
    done = r.run(*arguments, "-i", "127.0.0.1", "-p", server.port, "--insecure-tcp", other,
                 ok=(2,))
    expect(f"port {server.port}" in done.stderr and "in use" in done.stderr, done.stderr)
    done = r.run(*arguments, "-i", "no.such.name.invalid", "--insecure-tcp", other, ok=(2,))
    expect("no.such.name.invalid" in done.stderr, done.stderr)
    server.kill()
    # The port is free again at once.
    server.start("-p", server.port)
    Raw(connect(server)).go().write(0, b"x")
    server.stop()


def keepalive(rig, server):
    """A dead peer's machine is noticed."""
    raw = Raw(connect(server)).go()
    try:
        r.need("ss")
    except r.Skip as why:
        rig.note(f"keepalive was not looked at: {why}")
        return
    # While something is on its way, another timer is shown.
    r.wait_until(lambda: "keepalive" in r.run("ss", "-Htno", "sport", "=",
                                              f":{server.port}").stdout, "a keepalive timer")
    raw.close()


def test_bad_options(rig):
    """What is wrong with keys and options is said in one line that names it."""
    keys = Keys(rig)
    store = rig.create("--size", MIB)
    good, psk = keys.file("good", ""), psk_file(rig, "psk", "a:00ff")
    os.mkdir(rig.path("empty"))
    os.mkdir(rig.path("mixed"))
    for name, of in (("ca-cert.pem", "ca-cert.pem"), ("server-cert.pem", "server-cert.pem"),
                     ("server-key.pem", "client-key.pem")):
        os.symlink(keys.file("good", of), rig.path("mixed/" + name))
    cases = [
        (("--tls-certificates", good, "--tls-psk", psk), "exclude"),
        (("--tls-no-verify-peer", "--tls-psk", psk), "--tls-no-verify-peer"),
        (("--tls-required",), "--tls-required"),
        (("--tls-required", "--insecure-tcp", "--tls-psk", psk), "exclude"),
        (("-p", "65536", "--insecure-tcp"), "65536"),
        (("--tls-certificates", rig.path("empty")), "empty/ca-cert.pem"),
        (("--tls-certificates", rig.path("mixed")), "mixed/server-key.pem"),
        (("--tls-psk", rig.path("absent")), "absent"),
        (("--tls-psk", rig.path("empty")), "empty"),
    ]
    for number, text in enumerate(("a", "a:", ":00", "a:0", "a:xy", "#xy:00", "#:00"), 1):
        path = psk_file(rig, f"psk{number}", "", "good:00ff", text)
        cases.append((("--tls-psk", path), f"psk{number}, line 3"))
    cases.append((("--tls-psk", psk_file(rig, "nothing", "")), "no key"))
    for options, said in cases:
        done = r.run(r.SAMEBLKD, "-U", rig.path("x.nbd"), "-c", rig.path("x.ctl"), *options, store,
                     ok=(2,))
        expect(said in done.stderr and done.stderr.count("\n") == 1, f"{options}: {done.stderr}")
        expect("00ff" not in done.stderr, f"a key is told: {done.stderr}")


def test_handed_over(rig):
    """Sockets from systemd and -s that are not Unix sockets need TLS as well."""
    keys = Keys(rig)
    store = rig.create("--size", MIB)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    shell = f'exec 3<&{listening.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -c "$@"'
    command = ["/bin/sh", "-c", shell, r.SAMEBLKD, rig.path("a.ctl"), store]
    done = r.run(*command, pass_fds=[listening.fileno()], ok=(2,))
    expect("needs TLS" in done.stderr, done.stderr)
    near = socket.create_connection(("127.0.0.1", port))
    far = listening.accept()[0]
    done = r.run(r.SAMEBLKD, "-s", "-c", rig.path("a.ctl"), store, stdin=far, ok=(2,))
    expect("needs TLS" in done.stderr, done.stderr)
    process = rig.spawn(*command, "--tls-certificates", keys.file("good", ""),
                        pass_fds=[listening.fileno()], stdout=subprocess.PIPE)
    raw = Raw(socket.create_connection(("127.0.0.1", port), timeout=60)).greet()
    expect_equal(raw.option_replies(n.LIST)[0][0], TLS_REQD, "LIST")
    raw.starttls(keys.context()).enter_structured()
    expect_equal(raw.write(0, b"handed over"), 0, "a write")
    raw.close()
    near.close()
    process.terminate()
    expect_equal(process.wait(60), 0, "the exit status")
    r.offline_check(store)


if __name__ == "__main__":
    r.main(globals())
