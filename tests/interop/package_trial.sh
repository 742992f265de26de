#!/bin/bash
# Inside a booted container: the .deb as an administrator would have it. Each line that says
# "ok" is a step that worked; the last one is "ok done".
set -eEuo pipefail
trap 'echo "failed: line $LINENO: $BASH_COMMAND"; journalctl -u pptpcon --no-pager -n 60' ERR
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
one=/trial/one.deb two=/trial/two.deb

dpkg -i "$one"
test "$(readlink /opt/pptpcon/current)" = "$(ls /usr/lib/pptpcon)"
id pptpcon >/dev/null
pptpcon check-config
test "$(stat -c '%a %U' /etc/pptpcon/chap-secrets)" = "600 root"
test "$(stat -c '%a %U %G' /etc/pptpcon/pptpcon.toml)" = "640 root pptpcon"
systemd-analyze verify /lib/systemd/system/pptpcon.service
! systemctl -q is-enabled pptpcon
echo "ok installed"

echo 'bob * "a long password" *' >>/etc/pptpcon/chap-secrets
ip link set lo up
ip netns add far
ip link add outer type veth peer name outer netns far
ip address add 198.18.0.1/24 dev outer && ip link set outer up
ip -n far address add 198.18.0.2/24 dev outer && ip -n far link set outer up
ip -n far link set lo up
systemctl enable --now pptpcon
systemctl is-active pptpcon
keeper=$(systemctl show -P MainPID pptpcon)
test "$(stat -c %U /proc/"$(pgrep -f 'dispatcher[.]process' | head -n 1)")" = pptpcon
pptpcon show version
echo "ok started"

printf 'a long password\n' >/trial/password
ip netns exec far /opt/pptpcon/current/bin/python3 -P -m ops.client --server 198.18.0.1 \
    --user bob --password-file /trial/password --route 10.99.0.1/32 --json >/trial/client 2>&1 &
client=$!
for _ in $(seq 100); do
    ip netns exec far ping -c 1 -W 1 10.99.0.1 >/dev/null 2>&1 && break
    sleep 0.1
done
ip netns exec far ping -c 2 -W 2 10.99.0.1
pptpcon show sessions | grep bob
echo "ok session"

first=$(readlink /opt/pptpcon/current)
dpkg -i "$two" | tee /trial/upgrade
grep -q 'systemctl restart pptpcon' /trial/upgrade
test "$(readlink /opt/pptpcon/current)" != "$first"
test -d "/opt/pptpcon/$first"
test "$(systemctl show -P MainPID pptpcon)" = "$keeper"
ip netns exec far ping -c 2 -W 2 10.99.0.1
systemctl reload pptpcon
ip netns exec far ping -c 1 -W 2 10.99.0.1
pptpcon show sessions | grep bob
grep -q bob /etc/pptpcon/chap-secrets
echo "ok upgraded under a session"

kill "$client" && wait "$client" || true
systemctl restart pptpcon
grep -q "$(readlink /opt/pptpcon/current)/" /proc/"$(systemctl show -P MainPID pptpcon)"/maps
pptpcon show version
dpkg -i "$two" >/dev/null
test ! -e "/opt/pptpcon/$first"
echo "ok restarted"

dpkg -r pptpcon
! systemctl -q is-active pptpcon
test ! -e /opt/pptpcon && test ! -e /usr/bin/pptpcon
test -e /etc/pptpcon/chap-secrets
! ip link show pptp0 2>/dev/null
dpkg -P pptpcon
test ! -e /etc/pptpcon/pptpcon.toml
echo "ok removed"
echo "ok done"
