# fish completion for passt(1), made from its table of options. Needs no other file.
#
# Install as /usr/share/fish/vendor_completions.d/passt.fish.


complete -c passt -f
complete -c passt -s d -l debug \
    -d 'say more, on stderr'
complete -c passt -l trace \
    -d 'say something about every packet as well'
complete -c passt -s q -l quiet \
    -d 'say only what is wrong'
complete -c passt -s f -l foreground \
    -d 'stay in the foreground (default: a daemon, once the network is ready)'
complete -c passt -s l -l log-file -r -F \
    -d 'log to this file instead of to the system\'s log'
complete -c passt -l log-size -x \
    -d 'largest size of that file (default=1048576, min=40960)'
complete -c passt -l runas -x \
    -d 'run as this user, if started as root'
complete -c passt -s c -l conf-path -r -F \
    -d 'path of the socket at which pesto(1) changes ports'
complete -c passt -s h -l help \
    -d 'print this text and exit'
complete -c passt -l version \
    -d 'print the version and exit'
complete -c passt -s p -l pcap -r -F \
    -d 'record the guest\'s frames, for Wireshark or tcpdump'
complete -c passt -s P -l pid -r -F \
    -d 'write the number of the process to this file'
complete -c passt -s m -l mtu -x -a '1500 65520' \
    -d 'MTU of the guest\'s interface (default=65520, max=65521, 0: not told)'
complete -c passt -s a -l address -x \
    -d 'the guest\'s address, once a family (default: those of the host)'
complete -c passt -s n -l netmask -x \
    -d 'its IPv4 netmask, with dots or in bits'
complete -c passt -s M -l mac-addr -x \
    -d 'our MAC address on the link (default=9a:55:9a:55:9a:55)'
complete -c passt -s g -l gateway -x \
    -d 'the guest\'s default gateway, once a family (default: the host\'s routes)'
complete -c passt -s i -l interface -x -a '(__fish_print_interfaces)' \
    -d 'interface to copy addresses and routes of (default: of the default route)'
complete -c passt -s o -l outbound -x \
    -d 'address of the host that traffic leaves from, once a family'
complete -c passt -l outbound-if4 -x -a '(__fish_print_interfaces)' \
    -d 'interface that IPv4 traffic leaves by, copied unless -i is given'
complete -c passt -l outbound-if6 -x -a '(__fish_print_interfaces)' \
    -d 'interface that IPv6 traffic leaves by, copied unless -i is given'
complete -c passt -s D -l dns -x -a 'none' \
    -d 'resolver to tell the guest of (repeatable; default: those of the host)'
complete -c passt -s S -l search -x -a 'none' \
    -d 'search domain to tell the guest of (repeatable; default: those of the host)'
complete -c passt -l dns-forward -x \
    -d 'answer DNS queries to this address, once a family'
complete -c passt -l dns-host -x \
    -d 'resolver that they go to, once a family (default: those of the host)'
complete -c passt -s H -l hostname -x \
    -d 'host name to tell the guest, and of COMMAND'
complete -c passt -l fqdn -x \
    -d 'full name to tell the guest'
complete -c passt -l no-tcp \
    -d 'carry no TCP'
complete -c passt -l no-udp \
    -d 'carry no UDP'
complete -c passt -l no-icmp \
    -d 'carry no ICMP and ICMPv6 (implies --no-ndp)'
complete -c passt -l no-dhcp \
    -d 'offer no DHCP'
complete -c passt -l no-ndp \
    -d 'answer no neighbour solicitations'
complete -c passt -l no-dhcpv6 \
    -d 'offer no DHCPv6'
complete -c passt -l no-ra \
    -d 'send no router advertisements (implied by --config-net)'
complete -c passt -l freebind \
    -d 'open ports also at addresses that the host does not have'
complete -c passt -l map-host-loopback -x -a 'none' \
    -d 'the host\'s loopback has this address (default: the gateway\'s)'
complete -c passt -l no-map-gw \
    -d 'keep the guest away from the host\'s loopback by the gateway\'s address'
complete -c passt -l map-guest-addr -x -a 'none' \
    -d 'the host\'s own address, which the guest has as well, has this address'
complete -c passt -s 4 -l ipv4-only \
    -d 'IPv4 alone'
complete -c passt -s 6 -l ipv6-only \
    -d 'IPv6 alone'
complete -c passt -s t -l tcp-ports -x -a 'none auto all' \
    -d 'TCP ports of the host that lead to the guest (repeatable, default=auto)'
complete -c passt -s u -l udp-ports -x -a 'none auto all' \
    -d 'UDP ports of the host that lead to the guest (repeatable, default=auto)'
complete -c passt -s F -l fd -x \
    -d 'connected socket of the virtual machine, whose end ends the program'
complete -c passt -s s -l socket -r -F \
    -d 'socket at which it connects (default: first free of /tmp/passt_1.socket ...)'
complete -c passt -s 1 -l one-off \
    -d 'exit when the first virtual machine has hung up'
complete -c passt -l no-dhcp-dns \
    -d 'do not tell the guest of resolvers'
complete -c passt -l no-dhcp-search \
    -d 'do not tell the guest of search domains'
