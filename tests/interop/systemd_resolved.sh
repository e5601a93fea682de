#!/usr/bin/env bash
# Runs a command beside a systemd-resolved that is the host's resolver, in namespaces that the caller made:
#   unshare --mount --net --pid --fork --mount-proc tests/interop/systemd_resolved.sh ROOT COMMAND...
# ROOT is where the package systemd-resolved is, / if it is installed.
set -euo pipefail
root=$1
shift

mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/systemd/resolve
cp -a /etc /run/etc
rm -f /run/etc/resolv.conf
ln -s /run/systemd/resolve/stub-resolv.conf /run/etc/resolv.conf
if ! grep -q '^systemd-resolve:' /run/etc/passwd; then
  echo 'systemd-resolve:x:991:991::/:/usr/sbin/nologin' >>/run/etc/passwd
  echo 'systemd-resolve:x:991:' >>/run/etc/group
fi
mkdir -p /run/etc/systemd
printf '[Resolve]\nDNS=192.0.2.1\n' >/run/etc/systemd/resolved.conf
mount --bind /run/etc /etc
chown systemd-resolve:systemd-resolve /run/systemd/resolve

cat >/run/bus.conf <<'END'
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_type="method_call"/> <allow send_type="signal"/>
    <allow send_destination="*"/> <allow receive_type="method_call"/> <allow receive_type="method_return"/>
    <allow receive_type="error"/> <allow receive_type="signal"/>
  </policy>
</busconfig>
END
dbus-daemon --config-file=/run/bus.conf --nofork --nopidfile &
ip link set lo up
for _ in $(seq 200); do [ -S /run/dbus/system_bus_socket ] && break; sleep 0.05; done
"${root%/}/lib/systemd/systemd-resolved" &
export PATH="${root%/}/usr/bin:$PATH"
for _ in $(seq 200); do resolvectl dns >/dev/null 2>&1 && break; sleep 0.05; done
"$@"
