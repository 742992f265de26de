"""`python -m ops.client`: log sessions in to a PPTP server and keep them up."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import resource
import sys
from typing import get_args

import click

from ops.client.fleet import NO_ENGINE, Fleet, open_path
from ops.client.netlink import NetlinkError
from ops.client.options import Options
from ops.client.report import Report
from ops.client.sockets import SocketError
from ops.settings import AuthMethod, MppePolicy, StatefulPolicy

UNAVAILABLE = 69
CALL_IDS = 65536
NO_PERMISSION = 77


def _password(fd: int | None, path: str | None) -> str:
    if (fd is None) == (path is None):
        raise click.UsageError("give one of --password-fd and --password-file")
    try:
        with open(fd if fd is not None else str(path), encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as e:
        source = path if path is not None else f"descriptor {fd}"
        raise click.ClickException(f"password from {source}: {e}") from None


def _network(text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as e:
        raise click.BadParameter(f"{text}: {e}", param_hint="--route") from None


def _words(text: str, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    words = tuple(w for w in text.split(",") if w)
    for word in words:
        if word not in known:
            raise click.BadParameter(f"{word}: not one of {', '.join(known)}", param_hint=option)
    return words


def _sources(text: str) -> tuple[str, ...]:
    words = tuple(w for w in text.split(",") if w)
    for word in words:
        try:
            ipaddress.IPv4Address(word)
        except ValueError:
            hint = "--source"
            raise click.BadParameter(f"{word}: not an IPv4 address", param_hint=hint) from None
    return words


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--server", required=True, help="address or name of the PPTP server")
@click.option("--port", default=1723, show_default=True)
@click.option("--user", required=True, help="account; {i} is the session's number")
@click.option("--password-fd", type=int, help="descriptor whose first line is the password")
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False))
@click.option("--count", type=click.IntRange(1, 65000), default=1, show_default=True)
@click.option("--source", default="", help="own addresses, with commas; used by turns")
@click.option("--mppe", type=click.Choice(get_args(MppePolicy)), default="require")
@click.option("--auth", default="mschapv2", show_default=True, help="methods agreed to")
@click.option("--strengths", default="128", show_default=True, help="of 128 and 40")
@click.option("--stateful", type=click.Choice(get_args(StatefulPolicy)), default="refuse")
@click.option("--route", multiple=True, help="network to route into the tunnel; repeatable")
@click.option("--tun", default="pptpc%d", show_default=True, help="name of the device")
@click.option("--mtu", type=click.IntRange(128, 1500), default=1400, show_default=True)
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="logins a second; 0: any")
@click.option(
    "--starting",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="logins that may be on their way at once",
)
@click.option("--hold", type=click.FloatRange(0), help="seconds to stay; else until SIGTERM")
@click.option("--call-id", type=click.IntRange(0, 65535), help="of session 1; else free ones")
@click.option("--reorder-ms", type=click.IntRange(1, 10000), default=50, show_default=True)
@click.option("--cpu", type=int, default=-1, help="CPU of the data thread")
@click.option("--json", "as_json", is_flag=True, help="JSON lines")
def main(
    server: str,
    port: int,
    user: str,
    password_fd: int | None,
    password_file: str | None,
    count: int,
    source: str,
    mppe: MppePolicy,
    auth: str,
    strengths: str,
    stateful: StatefulPolicy,
    route: tuple[str, ...],
    tun: str,
    mtu: int,
    rate: float,
    starting: int,
    hold: float | None,
    call_id: int | None,
    reorder_ms: int,
    cpu: int,
    as_json: bool,
) -> None:
    """Log sessions in to a PPTP server and keep them up until SIGTERM.

    Each session's inner address is put on one TUN device: programs choose their session
    by the address they bind to. Several clients beside each other need routes that
    differ, or programs that bind to the device. SIGUSR1 has the packet counters told. Exit
    status: 0 all well, 1 some failed or were lost.
    """
    if call_id is not None and call_id + count > CALL_IDS:
        raise click.UsageError(f"--call-id {call_id}: {count} sessions need more call IDs")
    methods = _words(auth, get_args(AuthMethod), "--auth")
    options = Options(
        server=server,
        port=port,
        user=user,
        password=_password(password_fd, password_file),
        count=count,
        sources=_sources(source),
        mppe=mppe,
        auth=methods,  # type: ignore[arg-type] # _words() looked at each
        strengths=tuple(int(w) for w in _words(strengths, ("128", "40"), "--strengths")),
        stateful=stateful,
        routes=tuple(_network(text) for text in route),
        tun=tun,
        mtu=mtu,
        rate=rate,
        starting=starting,
        hold=hold,
        call_id=call_id,
        reorder_ms=reorder_ms,
        cpu=cpu,
    )
    if os.geteuid() != 0:
        click.echo("pptpcon client: TUN devices and raw sockets need root: use sudo", err=True)
        sys.exit(NO_PERMISSION)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        path = open_path(options)
    except (SocketError, NetlinkError) as e:
        click.echo(f"pptpcon client: {e}", err=True)
        sys.exit(UNAVAILABLE)
    except ImportError as e:
        click.echo(f"pptpcon client: {NO_ENGINE} ({e})", err=True)
        sys.exit(UNAVAILABLE)
    try:
        status = asyncio.run(Fleet(options, Report(sys.stdout, as_json=as_json), path).run())
    finally:
        path.close()
    sys.exit(status)


if __name__ == "__main__":
    main()
