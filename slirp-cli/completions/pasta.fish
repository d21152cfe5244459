# fish completion for pasta(1), made from its table of options. Needs no other file.
#
# Install as /usr/share/fish/vendor_completions.d/pasta.fish.


complete -c pasta -f -a '(__fish_complete_subcommand --fcs-skip=1 -l --log-file --log-size --runas -c --conf-path -p --pcap -P --pid -m --mtu -a --address -n --netmask -M --mac-addr -g --gateway -i --interface -o --outbound --outbound-if4 --outbound-if6 -D --dns -S --search --dns-forward --dns-host -H --hostname --fqdn --map-host-loopback --map-guest-addr -t --tcp-ports -u --udp-ports -T --tcp-ns -U --udp-ns -I --ns-ifname --ns-mac-addr --userns --netns)'
complete -c pasta -l config-net \
    -d 'set the guest\'s interface up: addresses, routes, MTU'
complete -c pasta -s d -l debug \
    -d 'say more, on stderr'
complete -c pasta -l trace \
    -d 'say something about every packet as well'
complete -c pasta -s q -l quiet \
    -d 'say only what is wrong'
complete -c pasta -s f -l foreground \
    -d 'stay in the foreground (default: a daemon, once the network is ready)'
complete -c pasta -s l -l log-file -r -F \
    -d 'log to this file instead of to the system\'s log'
complete -c pasta -l log-size -x \
    -d 'largest size of that file (default=1048576, min=40960)'
complete -c pasta -l runas -x \
    -d 'run as this user, if started as root'
complete -c pasta -s c -l conf-path -r -F \
    -d 'path of the socket at which pesto(1) changes ports'
complete -c pasta -s h -l help \
    -d 'print this text and exit'
complete -c pasta -l version \
    -d 'print the version and exit'
complete -c pasta -s p -l pcap -r -F \
    -d 'record the guest\'s frames, for Wireshark or tcpdump'
complete -c pasta -s P -l pid -r -F \
    -d 'write the number of the process to this file'
complete -c pasta -s m -l mtu -x -a '1500 65520' \
    -d 'MTU of the guest\'s interface (default=65520, max=65521, 0: not told)'
complete -c pasta -s a -l address -x \
    -d 'the guest\'s address, once a family (default: those of the host)'
complete -c pasta -s n -l netmask -x \
    -d 'its IPv4 netmask, with dots or in bits'
complete -c pasta -s M -l mac-addr -x \
    -d 'our MAC address on the link (default=9a:55:9a:55:9a:55)'
complete -c pasta -s g -l gateway -x \
    -d 'the guest\'s default gateway, once a family (default: the host\'s routes)'
complete -c pasta -s i -l interface -x -a '(__fish_print_interfaces)' \
    -d 'interface to copy addresses and routes of (default: of the default route)'
complete -c pasta -s o -l outbound -x \
    -d 'address of the host that traffic leaves from, once a family'
complete -c pasta -l outbound-if4 -x -a '(__fish_print_interfaces)' \
    -d 'interface that IPv4 traffic leaves by, copied unless -i is given'
complete -c pasta -l outbound-if6 -x -a '(__fish_print_interfaces)' \
    -d 'interface that IPv6 traffic leaves by, copied unless -i is given'
complete -c pasta -s D -l dns -x -a 'none' \
    -d 'resolver to tell the guest of (repeatable; default: those of the host)'
complete -c pasta -s S -l search -x -a 'none' \
    -d 'search domain to tell the guest of (repeatable; default: those of the host)'
complete -c pasta -l dhcp-dns \
    -d 'tell the guest of resolvers by DHCP, DHCPv6 and NDP'
complete -c pasta -l dhcp-search \
    -d 'tell the guest of search domains by DHCP, DHCPv6 and NDP'
complete -c pasta -l dns-forward -x \
    -d 'answer DNS queries to this address, once a family'
complete -c pasta -l dns-host -x \
    -d 'resolver that they go to, once a family (default: those of the host)'
complete -c pasta -s H -l hostname -x \
    -d 'host name to tell the guest, and of COMMAND'
complete -c pasta -l fqdn -x \
    -d 'full name to tell the guest'
complete -c pasta -l no-tcp \
    -d 'carry no TCP'
complete -c pasta -l no-udp \
    -d 'carry no UDP'
complete -c pasta -l no-icmp \
    -d 'carry no ICMP and ICMPv6 (implies --no-ndp)'
complete -c pasta -l no-dhcp \
    -d 'offer no DHCP'
complete -c pasta -l no-ndp \
    -d 'answer no neighbour solicitations'
complete -c pasta -l no-dhcpv6 \
    -d 'offer no DHCPv6'
complete -c pasta -l no-ra \
    -d 'send no router advertisements (implied by --config-net)'
complete -c pasta -l freebind \
    -d 'open ports also at addresses that the host does not have'
complete -c pasta -l map-host-loopback -x -a 'none' \
    -d 'the host\'s loopback has this address (default: the gateway\'s)'
complete -c pasta -l no-map-gw \
    -d 'keep the guest away from the host\'s loopback by the gateway\'s address'
complete -c pasta -l map-guest-addr -x -a 'none' \
    -d 'the host\'s own address, which the guest has as well, has this address'
complete -c pasta -s 4 -l ipv4-only \
    -d 'IPv4 alone'
complete -c pasta -s 6 -l ipv6-only \
    -d 'IPv6 alone'
complete -c pasta -s t -l tcp-ports -x -a 'none auto all' \
    -d 'TCP ports of the host that lead to the guest (repeatable, default=auto)'
complete -c pasta -s u -l udp-ports -x -a 'none auto all' \
    -d 'UDP ports of the host that lead to the guest (repeatable, default=auto)'
complete -c pasta -s T -l tcp-ns -x -a 'none auto all' \
    -d 'TCP ports of the guest\'s 127.0.0.1 that lead to the host\'s (repeatable)'
complete -c pasta -s U -l udp-ns -x -a 'none auto all' \
    -d 'UDP ports of the guest\'s 127.0.0.1 that lead to the host\'s (repeatable)'
complete -c pasta -s I -l ns-ifname -x \
    -d 'name of the guest\'s interface (default: as on the host)'
complete -c pasta -l ns-mac-addr -x \
    -d 'MAC address of the guest\'s interface'
complete -c pasta -l userns -r -F \
    -d 'user namespace to join (default: the one of PID)'
complete -c pasta -l netns -r -F \
    -d 'network namespace to join, instead of that of PID'
complete -c pasta -l netns-only \
    -d 'stay in the user namespace of the caller (implied by --netns)'
complete -c pasta -l no-netns-quit \
    -d 'do not exit when the network namespace is gone'
complete -c pasta -l host-lo-to-ns-lo \
    -d 'connections of the host\'s loopback arrive at the guest\'s loopback'
complete -c pasta -l no-splice \
    -d 'connections of the host\'s loopback arrive by the guest\'s interface'
complete -c pasta -l splice-only \
    -d 'join the loopbacks and give the guest no interface'
