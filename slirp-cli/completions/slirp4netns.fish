# fish completion for slirp4netns(1).
#
# Install as /usr/share/fish/vendor_completions.d/slirp4netns.fish.

# What the first argument is depends on --netns-type.
function __slirp4netns_wants_path
    string match -qr -- '--(netns-type[= ]path|target-type[= ]bess)' (commandline -cp)
end

complete -c slirp4netns -n 'not __slirp4netns_wants_path' -f -a '(__fish_complete_pids)'
complete -c slirp4netns -n __slirp4netns_wants_path -F
complete -c slirp4netns -s c -l configure -d 'Set the tap up: addresses, route, MTU'
complete -c slirp4netns -s e -l exit-fd -x -d 'Exit when this descriptor is closed'
complete -c slirp4netns -s r -l ready-fd -x -d 'Write "1" there once the network is ready'
complete -c slirp4netns -s m -l mtu -x -a '1500 65520' -d 'MTU of the tap'
complete -c slirp4netns -s 6 -l enable-ipv6 -d 'Offer IPv6 as well'
complete -c slirp4netns -s a -l api-socket -r -F -d 'Socket that takes requests'
complete -c slirp4netns -l cidr -x -d 'Network of the guest (10.0.2.0/24)'
complete -c slirp4netns -l disable-host-loopback -d 'Keep the guest away from 127.0.0.1'
complete -c slirp4netns -l netns-type -x -a 'pid path tapfd' -d 'What the first argument is'
complete -c slirp4netns -l userns-path -r -F -d 'User namespace to enter first'
complete -c slirp4netns -l enable-sandbox -d 'Own read-only root, no capabilities'
complete -c slirp4netns -l enable-seccomp -d 'Allow only the system calls needed'
complete -c slirp4netns -l outbound-addr -x -a '(__fish_print_interfaces)' \
    -d 'Address or interface that IPv4 leaves from'
complete -c slirp4netns -l outbound-addr6 -x -a '(__fish_print_interfaces)' \
    -d 'Address or interface that IPv6 leaves from'
complete -c slirp4netns -l disable-dns -d 'Do not answer DNS queries'
complete -c slirp4netns -l macaddress -x -d 'MAC address of the tap'
complete -c slirp4netns -l target-type -x -a 'netns bess' -d 'How the guest is connected'
complete -c slirp4netns -l cidr6 -x -d 'IPv6 network of the guest (fd00::/64)'
complete -c slirp4netns -l publish -x -d '[PROTO:][ADDR:]PORT[-PORT]:[GUEST:]PORT'
complete -c slirp4netns -l dns -x -d 'Resolver to ask'
complete -c slirp4netns -l search-domain -x -d 'Where the guest looks up short names'
complete -c slirp4netns -l log-level -x -a 'error warn info debug trace' -d 'What is logged'
complete -c slirp4netns -l pcap -r -F -d 'Record the frames in this file or FIFO'
complete -c slirp4netns -l exit-with-netns -d 'Exit when PID has ended or PATH is gone'
complete -c slirp4netns -l busy-poll -x -a '0 20' -d 'Look for events so long before sleeping'
complete -c slirp4netns -l allow -x -a 'any internet private host-loopback link-local metadata multicast dns' -d 'Let the guest go there'
complete -c slirp4netns -l deny -x -a 'any internet private host-loopback link-local metadata multicast dns' -d 'Keep the guest away from there'
complete -c slirp4netns -l ask -x -a 'any internet private host-loopback link-local metadata multicast dns' -d 'Have somebody decide'
complete -c slirp4netns -l policy -r -F -d 'Read rules from this file'
complete -c slirp4netns -l policy-mode -x -a 'enforce audit' -d 'Obey the rules or only tell of them'
complete -c slirp4netns -l audit-log -r -F -d 'Append what the rules decide to this file'
complete -c slirp4netns -l audit -x -a 'denied decisions all' -d 'How much the log has'
complete -c slirp4netns -l audit-required -d 'Refuse new connections without a log'
complete -c slirp4netns -l control-socket -r -F -d 'Socket for policy, questions and events'
complete -c slirp4netns -l control-fd -x -d 'The same for one end of a socket pair'
complete -c slirp4netns -l rate-in -x -a '1M 10M 100M 1G' -d 'Bits a second that the guest receives'
complete -c slirp4netns -l rate-out -x -a '1M 10M 100M 1G' -d 'Bits a second that the guest sends'
complete -c slirp4netns -l metrics -x -a 'unix: 127.0.0.1:9100' -d 'Serve OpenMetrics'
complete -c slirp4netns -l metrics-members -d 'Count members one by one'
complete -c slirp4netns -s h -l help -d 'Print the options'
complete -c slirp4netns -s v -l version -d 'Print the version'
