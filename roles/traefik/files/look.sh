#!/bin/sh
# Print the edge's state as YAML: which edge serves, containers, networks and certificates. Argument: the directory of the edges.
list() { paste -s -d, | sed 's/^/[/; s/$/]/'; }

cd "$1" 2> /dev/null || cd /
if [ -x /usr/sbin/nft ]; then echo "nft: true"; else echo "nft: false"; fi
if grep -qs '^0\{31\}1 ' /proc/net/if_inet6; then echo "ipv6: true"; else echo "ipv6: false"; fi
# The engine's own interfaces have addresses even where IPv6 is off.
if grep -qsvE ' (br-|docker|veth)[^ ]*$' /proc/net/if_inet6; then echo "any_ipv6: true"; else echo "any_ipv6: false"; fi
if [ -d /proc/sys/net/ipv6 ]; then echo "kernel_ipv6: true"; else echo "kernel_ipv6: false"; fi
echo "serving: '$(sed -n 's/^# serving: //p' edge.nft 2> /dev/null)'"
echo "certificates: $(grep -l '"certificate"' acme/*/*.json 2> /dev/null | list)"
if [ -S /var/run/docker.sock ]; then
  names=$(docker ps --format '{{.Names}}')
  publishers=$(docker ps --filter publish=80 --filter publish=443 --format '{{.Names}}')
  networks=$(docker network ls --format '{{.Name}}')
  networks6=$(docker network ls --format '{{.Name}} {{.IPv6}}' | sed -n 's/ true$//p')
fi
echo "running: $(echo "$names" | sed -n 's/^berth-traefik_\([ab]\)-1$/\1/p' | list)"
echo "publishers: $(echo "$publishers" | list)"
echo "networks: $(echo "$networks" | list)"
echo "networks6: $(echo "$networks6" | list)"
