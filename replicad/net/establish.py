"""From frames to a link: runs the handshake of ``protocol.handshake`` over a carrier, within a time limit, and tells the other side why when it fails."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from replicad.errors import PeerError, UnreachableError
from replicad.net.link import Frames, Link, LinkConfig, Peer, monotonic_ms
from replicad.protocol.handshake import Answerer, Established, Identity, Opener
from replicad.protocol.wire import ClientHello, Fault, decode_handshake, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from replicad.model.ids import Digest, NodeId

HANDSHAKE_TIMEOUT_S = 10.0
FAREWELL_TIMEOUT_S = 1.0
HANDSHAKE_BYTES_MAX = 1024


async def open_link(frames: Frames, identity: Identity, *, saw: Digest | None, expect: NodeId | None, config: LinkConfig | None = None) -> Link:
    """The opener's half. Closes the frames on every failure. Raises PeerError when the other side is not what it must be, UnreachableError when it does not answer in time."""
    opener = Opener(identity, saw=saw, expect=expect)
    async with _handshaking(frames):
        await frames.send(encode(opener.hello))
        finish, established = opener.answer(decode_handshake(await _receive(frames)), now_ms=monotonic_ms())
        await frames.send(encode(finish))
    return _link(frames, established, outgoing=True, config=config)


async def accept_link(frames: Frames, identity: Identity, *, may_prove: Callable[[NodeId], bool], config: LinkConfig | None = None) -> Link:
    """The answerer's half. ``may_prove`` is asked before anything is computed; ``LinkTable`` asks whether it is a member when it is proven. Errors as in ``open_link``."""
    answerer = Answerer(identity)
    async with _handshaking(frames):
        hello = decode_handshake(await _receive(frames))
        if isinstance(hello, ClientHello) and hello.network == identity.network and not may_prove(hello.node):
            raise PeerError(f"{hello.node.short} is not a member of the network", code="not-a-member")
        await frames.send(encode(answerer.welcome(hello)))
        established = answerer.finish(decode_handshake(await _receive(frames)), now_ms=monotonic_ms())
    return _link(frames, established, outgoing=False, config=config)


async def _receive(frames: Frames) -> bytes:
    frame = await frames.receive()
    if not frame:
        raise UnreachableError("the connection was closed during the handshake")
    if len(frame) > HANDSHAKE_BYTES_MAX:
        raise PeerError(f"handshake message of {len(frame)} bytes (at most {HANDSHAKE_BYTES_MAX})", code="bad-frame")
    return frame


@asynccontextmanager
async def _handshaking(frames: Frames) -> AsyncIterator[None]:
    """Bounds the time, words the errors, tells the other side about its own, and closes the frames unless all went well."""
    done = False
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            yield
        done = True
    except TimeoutError:
        raise UnreachableError(f"no handshake within {HANDSHAKE_TIMEOUT_S:.0f} s") from None
    except ConnectionError as error:
        raise UnreachableError(f"the connection was lost during the handshake ({error or type(error).__name__})") from None
    except PeerError as error:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(FAREWELL_TIMEOUT_S):
                await frames.send(encode(Fault(error.error_code, error.message[:500])))
        raise
    finally:
        if not done:
            await frames.close()


def _link(frames: Frames, established: Established, *, outgoing: bool, config: LinkConfig | None) -> Link:
    peer = Peer(established.node, established.version, established.certificate, outgoing)
    link = Link(frames, peer, established.session, config=config)
    link.protected = established.protected
    return link
