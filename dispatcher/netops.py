"""netops: the root child that changes routes, addresses, links and the nft table.

`python -m dispatcher.netops --boot-fd N`. It serves a closed list of requests and
parses only our own msgpack, with bounds. It may die and be started again: requests are
looked at (MSG_PEEK), done and answered before they are taken from the socket, and all
of them may be done twice.

What it makes it takes back at the end, also when the keeper is gone. The nft table and
everything on a TUN go by themselves; blackhole routes are the only thing that a SIGKILL
leaves, and the next start removes them.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import sys
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from dispatcher import links, nft, routes, rtnl, subscribers_side
from dispatcher.firewall import Passed
from dispatcher.lan_rules import LISTS_MAX, AddressLists, Commands, Isolation
from dispatcher.links import Links
from dispatcher.neighbours import Neighbours
from dispatcher.rtnl import Change, RouteSocket
from dispatcher.rule_watch import RuleWatch
from fastpath import layout
from ops import boot, log, metrics, settings
from ops.networks import Network, host, parse_network
from ops.ranges import format_address, parse_ranges
from ops.settings import Settings

NAMES: Final = metrics.NETOPS_COUNTERS
REQUESTS: Final = NAMES.index("requests")
FAILURES: Final = NAMES.index("failures")
ADDED: Final = NAMES.index("routes_added")
DELETED: Final = NAMES.index("routes_deleted")
ISOLATED: Final = NAMES.index("isolated_packets")
LISTS_FAILED: Final = NAMES.index("list_failures")
PROXIES_FAILED: Final = NAMES.index("proxy_failures")
COUNT_S: Final = 2.0  # between looks at the rule's counter

OUR_NAME: Final = re.compile(r"pptp\d+")
LOCAL_MAX: Final = 1024  # inner addresses of our own that are put on the TUN
LOG_EVERY_S: Final = 1.0  # bad requests of one worker: one line a second
TELL_AGAIN_S: Final = 5.0  # that packet sockets must not be used: a new worker does not know
LEAVE_S: Final = 8  # the clean-up takes milliseconds; a stuck one is cut off


@dataclass(frozen=True, slots=True)
class Tun:
    """One TUN device of ours."""

    name: str
    ifindex: int
    worker: int


@dataclass(slots=True)
class Peer:
    """A worker's end. `bad` requests since the last line about them."""

    worker: int
    sock: socket.socket
    bad: int = 0
    logged_at: float = 0.0


def _lone(net: Network) -> tuple[int, int] | None:
    """Family and number of a prefix that is one address: for whom a LAN may be asked."""
    if net.length != 8 * len(net.octets):
        return None
    return (socket.AF_INET if net.version == 4 else socket.AF_INET6), net.first


class Netops:
    """All state is the kernel's; this knows what of it is ours."""

    def __init__(self, info: boot.Boot, out: log.Log, outside: int = -1) -> None:
        """`outside`: the namespace of GRE, where this thread is in another one."""
        self._log = out
        self._outside = outside
        self._settings = info.settings
        self._table = layout.Table.attach(info.fds["table"])
        self._tuns = [Tun(t["name"], t["ifindex"], t["worker"]) for t in info.extra["tuns"]]
        self._by_worker = {tun.worker: tun.ifindex for tun in self._tuns}
        self._packet_mode = bool(info.extra.get("packet_mode"))
        self._links = Links()
        self._routes = RouteSocket()
        self._neighbours = Neighbours(out, [tun.ifindex for tun in self._tuns])
        self._nft: nft.Table | None = None
        self._lists: AddressLists | None = None
        self._isolation: Isolation | None = None
        self._run_dir = info.run_dir
        self._count_at = 0.0
        self._nft_name = f"pptpcon_{info.extra.get('keeper_pid', os.getppid())}"
        self._metric = rtnl.BLACKHOLE_METRIC | zlib.crc32(info.run_dir.encode()) & 0xFFFF
        self._blackholes: set[Network] = set()
        self._local: set[int] = set()
        self._placed: set[int] = set()  # those of _local that we put on the first TUN
        self._link_local = ""  # on every TUN; "": none
        # Workers may send by packet sockets, and do unless a rule came up that these pass by.
        self._by_hop = bool(info.extra.get("hop")) and info.settings.gre.send == "auto"
        self._raw_only = False
        self._rings = bool(info.extra.get("rings"))  # AF_XDP passes by more rules
        self._passed = ""  # the rule about GRE received that was told of last

    # -- set-up

    def start(self) -> None:
        """Links, addresses, what a predecessor left, blackholes, sessions, nft table."""
        self._set_up_links()
        self._place_local()
        self._place_link_local()
        self._set_blackholes()
        self._restore_sessions()
        self._neighbours.restore(self._settings.lan, self._addresses())
        self._set_lan_rules()
        if self._packet_mode:
            self._load_nft()

    def _set_up_links(self) -> None:
        for tun in self._tuns:
            try:
                self._links.set_up(tun.ifindex, self._settings.ppp.mtu)
            except NetlinkError as e:
                self._log.error("device not set up", device=tun.name, error=str(e))

    def _wanted_local(self) -> set[int]:
        found: list[int] = []
        for first, last in parse_ranges(self._settings.ip.local):
            found += range(first, min(last, first + LOCAL_MAX) + 1)
            if len(found) > LOCAL_MAX:
                self._log.warning("ip.local is long", addresses=len(found), placed=LOCAL_MAX)
                break
        return set(found[:LOCAL_MAX])

    def _place_local(self) -> None:
        """Our inner addresses, where the host does not have them already, on the first TUN."""
        self._local = self._wanted_local()
        first = self._tuns[0].ifindex
        present = self._links.addresses()
        for address in sorted(self._local):
            where = present.get(address, set())
            if where - {first}:
                continue
            try:
                self._links.add_address(address, first)
                self._placed.add(address)
            except NetlinkError as e:
                self._log.error(
                    "local address not set", address=format_address(address), error=str(e)
                )
        for address in self._placed - self._local:
            self._links.delete_address(address, first)
        self._placed &= self._local

    def _place_link_local(self) -> None:
        """fe80:: and our interface identifier on every TUN: to IPv6 each is a link of its own."""
        six = self._settings.ipv6
        wanted = links.link_local(six.interface_id) if six.ipv6cp == "on" else ""
        for tun in self._tuns:
            try:
                if self._link_local and self._link_local != wanted:
                    self._links.delete_link_local(self._link_local, tun.ifindex)
                if wanted:
                    self._links.add_link_local(wanted, tun.ifindex)
            except NetlinkError as e:
                self._log.error(
                    "IPv6 address not set",
                    device=tun.name,
                    address=wanted,
                    error=str(e),
                    hint="is net.ipv6.conf.all.disable_ipv6 set?",
                )
        self._link_local = wanted

    def _set_blackholes(self) -> None:
        """One under each pool, and none of an earlier run that no pool wants.

        Those of our own run folder are ours. So are all others, unless there is a TUN that
        is not ours: then another instance may live beside us.
        """
        wanted = links.prefixes(self._settings.pools)
        six = self._settings.ipv6
        if six.ipv6cp == "on":
            wanted |= {parse_network(text) for pool in six.pools for text in pool.prefixes}
        names = {name for _, name in socket.if_nameindex()} - {tun.name for tun in self._tuns}
        alone = not any(OUR_NAME.fullmatch(name) for name in names)
        changes = [
            Change(False, prefix, metric=metric)
            for prefix, metric in self._links.blackholes()
            if (metric == self._metric and prefix not in wanted)
            or (metric != self._metric and alone)
        ]
        changes += [Change(True, prefix, metric=self._metric) for prefix in sorted(wanted)]
        for change, code in zip(changes, self._routes.apply(changes), strict=True):
            if code:
                self._log.error(
                    "blackhole route failed",
                    add=change.add,
                    prefix=str(change.network),
                    error=os.strerror(code),
                )
        self._blackholes = wanted

    def _restore_sessions(self) -> None:
        """Routes of sessions that are up: a predecessor of ours may have died half-way."""
        changes: list[Change] = []
        for session in self._table.sessions():
            if session.state != layout.STATE_ACTIVE or session.worker not in self._by_worker:
                continue
            ifindex = self._by_worker[session.worker]
            if routes.routable(session.address) and session.address not in self._local:
                changes.append(Change(True, host(session.address), ifindex))
            changes += [
                Change(True, Network(*found), ifindex) for found in self._table.nets(session.index)
            ]
        failed = sum(1 for code in self._routes.apply(changes) if code)
        if changes:
            self._log.notice("session routes restored", routes=len(changes), failed=failed)

    def _addresses(self) -> list[tuple[int, int]]:
        """Of sessions that are up: family and number."""
        found: list[tuple[int, int]] = []
        for session in self._table.sessions():
            if session.state == layout.STATE_ACTIVE and routes.routable(session.address):
                found.append((socket.AF_INET, session.address))
                nets = (Network(*net) for net in self._table.nets(session.index))
                found += [address for net in nets if (address := _lone(net))]
        return found

    def _set_lan_rules(self) -> None:
        """Isolation fails the start: who asks for it relies on it. Address lists do not."""
        lan = self._settings.lan
        try:
            commands = Commands()
            devices = [tun.ifindex for tun in self._tuns]
            self._isolation = Isolation(commands, self._run_dir, devices)
            self._isolation.set(lan.isolate)
            self._lists = AddressLists(commands, lan, self._run_dir, self._log)
            alive = (n for family, n in self._addresses() if family == socket.AF_INET)
            self._lists.begin(alive)
        except nft.NftError as e:
            if lan.isolate:
                raise OSError(f"lan.isolate: {e}") from None
            self._log.debug("no address lists", reason=str(e))

    def tick(self, now: float) -> None:
        """Count what the kernel has dropped for us."""
        if self._isolation is not None and self._settings.lan.isolate and now >= self._count_at:
            self._count_at = now + COUNT_S
            try:
                dropped = self._isolation.dropped()
            except nft.NftError as e:  # tried again next time; routes go on meanwhile
                self._log.error("subscribers are not isolated", reason=str(e))
                return
            if dropped:
                self._table.netops_count(ISOLATED, dropped)

    def _list(self, request: list[Any]) -> bool:
        """A session's address lists: [seq, "lists", address, name...]; False: a bad request."""
        _, _, address, *names = request
        if type(address) is not int or not routes.routable(address) or len(names) > LISTS_MAX:
            return False
        if not all(isinstance(name, str) and name for name in names):
            return False
        if self._lists is not None:
            self._lists.put(address, names)
        elif names:
            self._table.netops_count(LISTS_FAILED)
        return True

    def _load_nft(self) -> None:
        address = self._settings.listen.address
        try:
            only = "" if address == "0.0.0.0" else address  # noqa: S104
            with subscribers_side.inside(self._outside):
                self._nft = nft.Table(self._nft_name, nft.served(self._nft_name, only))
        except nft.NftError as e:
            self._log.warning(
                "no nft table; the kernel handles each GRE packet once more",
                error=str(e),
                instead="drop-all raw socket",
            )

    # -- requests

    def serve(self, peer: Peer) -> bool:
        """Answer one datagram of a worker; False if it first has to read what we sent.

        It is taken from the socket last.
        """
        try:
            datagram, _, flags, _ = peer.sock.recvmsg(routes.MAX_DATAGRAM, 0, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        answers: list[tuple[int, int]] = []
        if flags & socket.MSG_TRUNC:
            self._complain(peer, "datagram is too long")
        else:
            try:
                answers = self._answer(peer, datagram)
            except routes.RequestError as e:
                self._complain(peer, str(e))
        if answers:
            try:
                peer.sock.send(routes.reply(answers))
            except BlockingIOError:
                return False
            except OSError as e:
                self._complain(peer, f"reply not sent: {e.strerror}")
        peer.sock.recv(1)
        return True

    def _answer(self, peer: Peer, datagram: bytes) -> list[tuple[int, int]]:
        answers: dict[int, int] = {}
        changes: list[Change] = []
        owners: list[int] = []
        grounds = routes.Grounds(
            (self._by_worker.get(peer.worker, 0),),  # its routes lead to its own TUN
            self._local,
            self._settings.ip.default_routes,
        )
        for place, (_, request) in enumerate(found := routes.unpack(datagram)):
            self._table.netops_count(REQUESTS)
            if len(request) > 2 and request[1] == "lists":
                answers[place] = 0
                if not self._list(request):
                    self._complain(peer, "no address lists of a subscriber")
                    answers[place] = routes.BAD
                continue
            change = routes.judge(request, grounds)
            if isinstance(change, str):
                self._complain(peer, change)
                answers[place] = routes.BAD
            else:
                changes.append(change)
                owners.append(place)
        for place, change, code in zip(owners, changes, self._routes.apply(changes), strict=True):
            answers[place] = code
            if code:
                self._table.netops_count(FAILURES)
                self._log.warning(
                    "route failed",
                    add=change.add,
                    prefix=str(change.network),
                    worker=peer.worker,
                    error=os.strerror(code),
                )
            else:
                self._table.netops_count(ADDED if change.add else DELETED)
        self._neighbours.follow(
            (change.add, address)
            for place, change in zip(owners, changes, strict=True)
            if not answers[place] and (address := _lone(change.network))
        )
        if self._lists is not None:
            for place, change in zip(owners, changes, strict=True):
                net = change.network
                if (
                    not change.add
                    and not answers[place]
                    and len(net.octets) * 8 == net.length == 32
                ):
                    self._lists.put(net.first, ())
            self._lists.flush()
            failed, self._lists.failures = self._lists.failures, 0
            if failed:
                self._table.netops_count(LISTS_FAILED, failed)
        failed, self._neighbours.failures = self._neighbours.failures, 0
        if failed:
            self._table.netops_count(PROXIES_FAILED, failed)
        return [(seq, answers[place]) for place, (seq, _) in enumerate(found)]

    def _complain(self, peer: Peer, reason: str) -> None:
        self._table.netops_count(FAILURES)
        peer.bad += 1
        now = time.monotonic()
        if now - peer.logged_at >= LOG_EVERY_S:
            self._log.warning("bad request", worker=peer.worker, reason=reason, count=peer.bad)
            peer.logged_at = now
            peer.bad = 0

    # -- the host's own rules

    @property
    def watches_rules(self) -> bool:
        """Whether a change of the host's rules changes anything here."""
        return self._by_hop or (self._packet_mode and self._settings.gre.mode == "auto")

    def judged(self, passed: Passed, ipsec: bool, peers: Iterable[Peer]) -> None:
        """What packet sockets would pass by now. Sending changes at once; receiving is chosen
        at the start, so that is only said."""
        rings = (passed.ring_send, passed.ring_receive) if self._rings else ("", "")
        why = passed.send or rings[0] or ("there are IPsec policies" if ipsec else "")
        if self._by_hop and bool(why) != self._raw_only:
            self._raw_only = bool(why)
            way, reason = ("raw", why) if why else ("packet", "nothing is passed by any more")
            self._log.notice("gre mode", send=way, send_reason=reason)
            self.tell_way_out(peers)
        auto = self._packet_mode and self._settings.gre.mode == "auto"
        rule = (passed.receive or rings[1]) if auto else ""
        if rule and rule != self._passed:
            self._log.warning(
                "a firewall rule about GRE is passed by",
                rule=rule,
                hint="restart pptpcon: it then receives by raw sockets, which obey it",
            )
        self._passed = rule

    def tell_way_out(self, peers: Iterable[Peer]) -> None:
        """Which sockets workers may send with; number 0 is no answer to any request."""
        for peer in peers:
            try:
                peer.sock.send(routes.reply([(0, int(self._raw_only))]))
            except OSError:
                pass  # told again

    @property
    def counts(self) -> bool:
        """Whether there is a counter to look at now and then."""
        return self._isolation is not None and self._settings.lan.isolate

    @property
    def raw_only(self) -> bool:
        """Whether workers have to be told again and again: a successor starts without."""
        return self._raw_only

    # -- changes and the end

    def configure(self, new: Settings) -> None:
        """A reload: what is logged, MTU, local addresses, pools."""
        self._settings = new
        self._log.level = log.LEVELS[new.log.level]
        self._log.style = new.log.format
        self._set_up_links()
        self._place_local()
        self._place_link_local()
        self._set_blackholes()
        self._neighbours.restore(new.lan, self._addresses())
        if self._isolation is not None:
            try:
                self._isolation.set(new.lan.isolate)
            except nft.NftError as e:
                self._log.error("lan.isolate not carried out", error=str(e))

    def leave(self) -> None:
        """Take back what does not go by itself, and the rest for good measure."""
        self._neighbours.leave()
        if self._lists is not None:
            self._lists.leave()
        if self._isolation is not None:
            try:
                self._isolation.set(False)
            except nft.NftError as e:
                self._log.warning("table stays", error=str(e))
        self._routes.apply(
            [Change(False, prefix, metric=self._metric) for prefix in self._blackholes]
        )
        for address in self._placed:
            try:
                self._links.delete_address(address, self._tuns[0].ifindex)
            except NetlinkError as e:
                self._log.warning("address stays", address=format_address(address), error=str(e))
        if self._nft is not None:
            self._nft.close()
        self._routes.close()
        self._links.close()


def _messages(keeper: socket.socket) -> Iterable[dict[str, Any]]:
    """What the keeper says; its end counts as a stop."""
    while True:
        try:
            data = keeper.recv(8 << 20)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            yield {"type": "stop"}
            return
        yield json.loads(data)


def _patience(netops: Netops, watch: RuleWatch | None) -> int | None:
    """Milliseconds until there is something to do; None: for as long as nobody speaks."""
    counting = int(COUNT_S * 1000) if netops.counts else None
    if watch is None:
        return counting
    if watch.timer_at is not None:
        return max(0, int((watch.timer_at - time.monotonic()) * 1000) + 1)
    return int(TELL_AGAIN_S * 1000) if netops.raw_only and not counting else counting


def _mind(
    netops: Netops, watch: RuleWatch, peers: Iterable[Peer], ready: set[int], poll: select.poll
) -> None:
    """The host's rules: what is heard of them, what a look at them said."""
    now = time.monotonic()
    if ready & {sock.fileno() for sock in watch.sockets}:
        watch.heard(now)
    if watch.answer_fd in ready:
        poll.unregister(watch.answer_fd)
        found = watch.answer(now)
        if found is not None:
            netops.judged(*found, peers)
    if watch.timer_at is not None and now >= watch.timer_at:
        watch.begin(now)
        if watch.answer_fd >= 0:
            # Its whole answer is smaller than a pipe, or nearly: read when it closes.
            poll.register(watch.answer_fd, select.POLLIN)
    elif not ready and netops.raw_only:
        netops.tell_way_out(peers)


def run(info: boot.Boot, out: log.Log) -> None:
    """Serve until the keeper says stop or is gone."""
    outside = -1
    if "side" in info.fds:
        outside = os.open(subscribers_side.OURS, os.O_RDONLY | os.O_CLOEXEC)
        subscribers_side.enter(info.fds["side"])
    netops = Netops(info, out, outside)
    keeper = socket.socket(fileno=info.fds["keeper"])
    keeper.setblocking(False)
    peers: dict[int, Peer] = {}
    poll = select.poll()
    poll.register(keeper, select.POLLIN)
    for worker, fd in enumerate(info.fds["workers"]):
        peer = Peer(worker, socket.socket(fileno=fd))
        peer.sock.setblocking(False)
        peers[fd] = peer
        poll.register(fd, select.POLLIN)
    stopping = False
    watch: RuleWatch | None = None
    try:
        netops.start()
        keeper.send(json.dumps({"type": "ready"}).encode())
        if netops.watches_rules:
            with subscribers_side.inside(outside):
                watch = RuleWatch()
            # A predecessor may have told the workers otherwise, and rules may be new.
            watch.heard(time.monotonic())
            for sock in watch.sockets:
                poll.register(sock, select.POLLIN)
        while not stopping:
            ready = poll.poll(_patience(netops, watch))
            netops.tick(time.monotonic())
            if watch is not None:
                with subscribers_side.inside(outside):
                    _mind(netops, watch, peers.values(), {fd for fd, _ in ready}, poll)
            for fd, _ in ready:
                if watch is not None and fd not in peers and fd != keeper.fileno():
                    continue
                if fd in peers:
                    served = netops.serve(peers[fd])
                    poll.modify(fd, select.POLLIN if served else select.POLLOUT)
                    continue
                for message in _messages(keeper):
                    if message["type"] == "stop":
                        stopping = True
                        break
                    if message["type"] == "ping":
                        keeper.send(b'{"type": "pong"}')
                    if message["type"] == "log":
                        out.order(message)
                    if message["type"] == "settings":
                        text = json.dumps(message["settings"]).encode()
                        netops.configure(settings.loads(text))
    finally:
        signal.alarm(LEAVE_S)
        if watch is not None:
            watch.close()
        netops.leave()


def main() -> int:
    """Process entry."""
    info = boot.load()
    logging = info.settings.log
    out = log.Log("netops", level=log.LEVELS[logging.level], style=logging.format)
    # The keeper alone decides when we end; a service manager may signal everyone at once.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        run(info, out)
    except BrokenPipeError:
        return 0
    except (OSError, NetlinkError, layout.LayoutError) as e:
        out.error("netops failed", error=f"{type(e).__name__}: {e}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
