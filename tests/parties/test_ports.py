"""Ports that are given out stay those of who was told of them."""

from __future__ import annotations

import contextlib
import socket
import sys

import pytest
import zmq

from parties.local.ports import reserved_ports


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody else could have them either")
def test_nobody_else_is_given_one_and_servers_may_have_it_again_and_again() -> None:
    with contextlib.ExitStack() as stack:
        ports = stack.enter_context(reserved_ports(50))
        assert len({*ports}) == 50
        others = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(300)]
        ends = [stack.enter_context(socket.create_connection(one.getsockname())) for one in others]
        assert not {one.getsockname()[1] for one in [*others, *ends]} & {*ports}
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", ports[0])):
            pytest.fail("nobody listens there yet")
        for _ in range(2):
            with zmq.Context() as context, context.socket(zmq.ROUTER) as server:
                server.bind(f"tcp://127.0.0.1:{ports[0]}")
                with pytest.raises(OSError, match="in use"):
                    socket.create_server(("127.0.0.1", ports[0]))
            with socket.create_server(("127.0.0.1", ports[0])):
                pass
    with socket.socket() as anybody:
        anybody.bind(("127.0.0.1", ports[1]))
