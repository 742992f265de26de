"""listen.allow and listen.deny: a dispatcher that is told anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dispatcher.pptp.messages import DisconnectNotify, OutgoingReply, OutgoingRequest, StopRequest
from ops import messages as bus
from ops.settings import Listen
from tests.dispatcher.rig import SETTINGS, rig


def test_a_dispatcher_refuses_and_a_reload_hangs_up(tmp_path: Path) -> None:
    with rig(tmp_path, replace(SETTINGS, listen=Listen(deny=("127.0.0.0/8",)))) as one:
        assert one.client().at_end()
        one.counted("connections_refused_acl", 1)
        one.logged("control connection refused", "peer=127.0.0.1", "listen.deny")
        one.configure(listen=Listen())
        one.logged("settings taken over")
        worker = one.worker()
        worker.hello()
        client = one.client()
        client.start()
        client.send(OutgoingRequest(0))
        handle = worker.install()
        assert client.read(OutgoingReply).result == 1
        worker.up(handle, worker.admit(handle))
        one.logged("session up")  # the worker's message and the keeper's come by two ways
        one.configure(listen=Listen(allow=("10.0.0.0/8",)))
        end = worker.read(bus.End)
        assert (end.index, end.cause, end.soft) == (handle[0], "admin_reset", False)
        client.read(DisconnectNotify)
        client.read(StopRequest)
        worker.send(bus.Ended(*handle))
        one.logged("session down", "cause=admin_reset")
        one.logged("connections of denied peers ended", "connections=1")
        assert one.client().at_end()
        one.counted("connections_refused_acl", 2)
