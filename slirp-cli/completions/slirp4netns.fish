# fish completion for slirp4netns(1), made from its table of options. Needs no other file.
#
# Install as /usr/share/fish/vendor_completions.d/slirp4netns.fish.


# What the first argument is depends on --netns-type.
function __slirp4netns_wants_path
    string match -qr -- '--(netns-type[= ]path|target-type[= ]bess)' (commandline -cp)
end

complete -c slirp4netns -n 'not __slirp4netns_wants_path' -f -a '(__fish_complete_pids)'
complete -c slirp4netns -n __slirp4netns_wants_path -F
complete -c slirp4netns -s c -l configure \
    -d 'set the tap up: addresses, route, MTU, link up'
complete -c slirp4netns -s e -l exit-fd -x \
    -d 'exit when the other end of this descriptor is closed'
complete -c slirp4netns -s r -l ready-fd -x \
    -d 'write "1" to this descriptor once the network is ready'
complete -c slirp4netns -s m -l mtu -x -a '1500 65520' \
    -d 'MTU of the tap (default=1500, max=65521)'
complete -c slirp4netns -s 6 -l enable-ipv6 \
    -d 'offer IPv6 as well (experimental)'
complete -c slirp4netns -s a -l api-socket -r -F \
    -d 'path of the socket that takes requests, such as port forwards'
complete -c slirp4netns -l cidr -x \
    -d 'network that the guest lives in (default=10.0.2.0/24)'
complete -c slirp4netns -l disable-host-loopback \
    -d 'keep the guest away from the host\'s 127.0.0.1:*'
complete -c slirp4netns -l netns-type -x -a 'pid path tapfd' \
    -d 'what the first argument is ([path|pid|tapfd], default=pid)'
complete -c slirp4netns -l userns-path -r -F \
    -d 'user namespace to enter before the network namespace'
complete -c slirp4netns -l enable-sandbox \
    -d 'own read-only root, no capability but CAP_NET_BIND_SERVICE'
complete -c slirp4netns -l enable-seccomp \
    -d 'allow only the system calls that are needed (experimental)'
complete -c slirp4netns -l outbound-addr -x -a '(__fish_print_interfaces)' \
    -d 'address or interface that IPv4 leaves from (experimental)'
complete -c slirp4netns -l outbound-addr6 -x -a '(__fish_print_interfaces)' \
    -d 'address or interface that IPv6 leaves from (experimental)'
complete -c slirp4netns -l disable-dns \
    -d 'do not answer DNS queries at 10.0.2.3 (or .3 of the CIDR)'
complete -c slirp4netns -l macaddress -x \
    -d 'MAC address of the tap (only with -c)'
complete -c slirp4netns -l target-type -x -a 'netns bess stream' \
    -d 'what the guest is connected by ([netns|bess], default=netns)'
complete -c slirp4netns -s h -l help \
    -d 'print this text and exit'
complete -c slirp4netns -s v -l version \
    -d 'print the version and exit'
complete -c slirp4netns -l cidr6 -x \
    -d 'IPv6 network that the guest lives in (default=fd00::/64, needs -6)'
complete -c slirp4netns -l publish -x \
    -d '[PROTO:][ADDR:]PORT[-PORT]:[GUEST:]PORT of the host lead to the guest'
complete -c slirp4netns -l dns -x \
    -d 'ask this resolver instead of /etc/resolv.conf (repeatable)'
complete -c slirp4netns -l search-domain -x \
    -d 'tell the guest to look up short names there (repeatable)'
complete -c slirp4netns -l log-level -x -a 'error warn info debug trace' \
    -d 'log error, warn (default), info, debug or trace and above on stderr'
complete -c slirp4netns -l pcap -r -F \
    -d 'record the guest\'s frames in a file or FIFO, for Wireshark or tcpdump'
complete -c slirp4netns -l exit-with-netns \
    -d 'exit when the process PID has ended, or PATH is gone'
complete -c slirp4netns -l busy-poll -x -a '0 20' \
    -d 'poll for events this long before sleeping (default=20, max=1000, 0: never)'
complete -c slirp4netns -l allow -x -a 'any internet private host-loopback link-local metadata multicast dns' \
    -d 'let the guest go there, and nowhere else that no rule allows (repeatable)'
complete -c slirp4netns -l deny -x -a 'any internet private host-loopback link-local metadata multicast dns' \
    -d 'keep the guest away from there, whatever else is allowed (repeatable)'
complete -c slirp4netns -l ask -x -a 'any internet private host-loopback link-local metadata multicast dns' \
    -d 'have somebody decide whether the guest may go there (repeatable)'
complete -c slirp4netns -l policy -r -F \
    -d 'read rules from a file (repeatable; $SLIRP_POLICY names one more)'
complete -c slirp4netns -l policy-mode -x -a 'enforce audit' \
    -d 'obey the rules or only tell of them ([enforce|audit], default=enforce)'
complete -c slirp4netns -l audit-log -r -F \
    -d 'append what the rules decide to a file, or to a descriptor: fd:N'
complete -c slirp4netns -l audit -x -a 'denied decisions all' \
    -d 'how much the log has ([denied|decisions|all], default=decisions)'
complete -c slirp4netns -l audit-required \
    -d 'refuse new connections and lookups while the log cannot be written'
complete -c slirp4netns -l control-socket -r -F \
    -d 'path of the socket for policy, questions, events and rates'
complete -c slirp4netns -l control-fd -x \
    -d 'the same for this descriptor alone, one end of a socket pair'
complete -c slirp4netns -l rate-in -x -a '1M 10M 100M 1G' \
    -d 'let the guest receive this many bits a second: N[k|M|G][,burst=BYTES]'
complete -c slirp4netns -l rate-out -x -a '1M 10M 100M 1G' \
    -d 'let the guest send this many bits a second: N[k|M|G][,burst=BYTES]'
complete -c slirp4netns -l metrics -x -a 'unix: 127.0.0.1:9100' \
    -d 'serve OpenMetrics at unix:PATH, 127.0.0.1:PORT or [::1]:PORT'
complete -c slirp4netns -l metrics-members \
    -d 'count the members of a shared network one by one'
