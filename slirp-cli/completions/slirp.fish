# fish completion for slirp(1), made from its table of options. Needs no other file.
#
# Install as /usr/share/fish/vendor_completions.d/slirp.fish.

complete -c slirp -n __fish_use_subcommand -f -a run -d 'run a command on a network of its own'
complete -c slirp -n __fish_use_subcommand -f -a doctor -d 'tell what works here, what does not, and what to do about it'
complete -c slirp -n __fish_use_subcommand -f -a policy -d 'check egress policies, and explain what they say'
complete -c slirp -n __fish_use_subcommand -f -a learn -d 'make an egress policy out of audit logs'
complete -c slirp -n __fish_use_subcommand -f -a approve -d 'answer the questions of a policy, in this terminal'
complete -c slirp -n __fish_use_subcommand -f -a events -d 'show what a network decides, as it happens'
complete -c slirp -n __fish_use_subcommand -f -a top -d 'watch a network live'
complete -c slirp -n __fish_use_subcommand -f -a ls -d 'list the containers that are on a network of this user'
complete -c slirp -n __fish_use_subcommand -f -a rm -d 'take a container off its networks'
complete -c slirp -n __fish_use_subcommand -f -a oci-hook -d 'serve runc or crun as a hook'

complete -c slirp -n '__fish_seen_subcommand_from run' -f -a '(__fish_complete_subcommand --fcs-skip=2 -p --publish --dns --search-domain --mtu --cidr --cidr6 --outbound-addr --outbound-addr6 --rate-in --rate-out --allow --deny --ask --policy --policy-mode --control-socket --pcap --audit-log --audit --metrics --log-level --net-of)'
complete -c slirp -n '__fish_seen_subcommand_from run' -s p -l publish -x \
    -d '[PROTO:][ADDR:]PORT[-PORT]:PORT, of the host to it'
complete -c slirp -n '__fish_seen_subcommand_from run' -l host-loopback \
    -d 'let it reach the host\'s own 127.0.0.1, at 10.0.2.2'
complete -c slirp -n '__fish_seen_subcommand_from run' -l no-ipv6 \
    -d 'IPv4 alone (default: IPv6 too if the host has it)'
complete -c slirp -n '__fish_seen_subcommand_from run' -l ipv6 \
    -d 'IPv6 too, whatever the host has'
complete -c slirp -n '__fish_seen_subcommand_from run' -l dns -x \
    -d 'ask this resolver instead of the host\'s'
complete -c slirp -n '__fish_seen_subcommand_from run' -l no-dns \
    -d 'answer no DNS queries, and leave /etc/resolv.conf as it is'
complete -c slirp -n '__fish_seen_subcommand_from run' -l search-domain -x \
    -d 'look up short names there instead of in the host\'s domains'
complete -c slirp -n '__fish_seen_subcommand_from run' -l mtu -x -a '1500 65520' \
    -d 'MTU of its interface (default=65520)'
complete -c slirp -n '__fish_seen_subcommand_from run' -l cidr -x \
    -d 'its IPv4 network (default=10.0.2.0/24)'
complete -c slirp -n '__fish_seen_subcommand_from run' -l cidr6 -x \
    -d 'its IPv6 network (default=fd00::/64)'
complete -c slirp -n '__fish_seen_subcommand_from run' -l outbound-addr -x -a '(__fish_print_interfaces)' \
    -d 'address or interface of the host that IPv4 leaves from'
complete -c slirp -n '__fish_seen_subcommand_from run' -l outbound-addr6 -x -a '(__fish_print_interfaces)' \
    -d 'address or interface of the host that IPv6 leaves from'
complete -c slirp -n '__fish_seen_subcommand_from run' -l rate-in -x -a '1M 10M 100M 1G' \
    -d 'let it receive this many bits a second: N[k|M|G][,burst=BYTES]'
complete -c slirp -n '__fish_seen_subcommand_from run' -l rate-out -x -a '1M 10M 100M 1G' \
    -d 'let it send this many bits a second: N[k|M|G][,burst=BYTES]'
complete -c slirp -n '__fish_seen_subcommand_from run' -l allow -x -a 'any internet private host-loopback link-local metadata multicast dns' \
    -d 'there, and nowhere else that no rule allows'
complete -c slirp -n '__fish_seen_subcommand_from run' -l deny -x -a 'any internet private host-loopback link-local metadata multicast dns' \
    -d 'not there, whatever else is allowed'
complete -c slirp -n '__fish_seen_subcommand_from run' -l ask -x -a 'any internet private host-loopback link-local metadata multicast dns' \
    -d 'have somebody decide, by the control socket'
complete -c slirp -n '__fish_seen_subcommand_from run' -l policy -r -F \
    -d 'rules from a file'
complete -c slirp -n '__fish_seen_subcommand_from run' -l policy-mode -x -a 'enforce audit' \
    -d 'obey the rules or only tell of them ([enforce|audit], default=enforce)'
complete -c slirp -n '__fish_seen_subcommand_from run' -l control-socket -r -F \
    -d 'path of the socket for policy, questions, events and rates'
complete -c slirp -n '__fish_seen_subcommand_from run' -l pcap -r -F \
    -d 'record its packets, for Wireshark or tcpdump'
complete -c slirp -n '__fish_seen_subcommand_from run' -l audit-log -r -F \
    -d 'append what the rules decide, to a file or to fd:N'
complete -c slirp -n '__fish_seen_subcommand_from run' -l audit -x -a 'denied decisions all' \
    -d 'how much that log has ([denied|decisions|all], default=decisions)'
complete -c slirp -n '__fish_seen_subcommand_from run' -l audit-required \
    -d 'refuse new connections and lookups while that log cannot be written'
complete -c slirp -n '__fish_seen_subcommand_from run' -l metrics -x -a 'unix: 127.0.0.1:9100' \
    -d 'serve OpenMetrics at unix:PATH, 127.0.0.1:PORT or [::1]:PORT'
complete -c slirp -n '__fish_seen_subcommand_from run' -l log-level -x -a 'error warn info debug trace' \
    -d 'what it logs: error, warn (default), info, debug, ...'
complete -c slirp -n '__fish_seen_subcommand_from run' -l map-root \
    -d 'be root inside (default: the same user)'
complete -c slirp -n '__fish_seen_subcommand_from run' -l net-of -x -a '(__fish_complete_pids)' \
    -d 'in this network namespace instead of a new one'
complete -c slirp -n '__fish_seen_subcommand_from run' -l no-sandbox \
    -d 'leave the host\'s files and rights to the process that carries packets'
complete -c slirp -n '__fish_seen_subcommand_from run' -l no-seccomp \
    -d 'allow that process all system calls'
complete -c slirp -n '__fish_seen_subcommand_from run' -s h -l help \
    -d 'print the text of --help'

complete -c slirp -n '__fish_seen_subcommand_from doctor' -f
complete -c slirp -n '__fish_seen_subcommand_from doctor' -l json \
    -d 'print one JSON object instead of a table'
complete -c slirp -n '__fish_seen_subcommand_from doctor' -l no-drive \
    -d 'only look; do not make a network and drive it'
complete -c slirp -n '__fish_seen_subcommand_from doctor' -s h -l help \
    -d 'print the text of --help'

complete -c slirp -n '__fish_seen_subcommand_from policy' -F -a 'check explain'
complete -c slirp -n '__fish_seen_subcommand_from policy' -l canonical \
    -d 'print the policy, too: one spelling, sorted, without comments'
complete -c slirp -n '__fish_seen_subcommand_from policy' -s h -l help \
    -d 'print the text of --help'

complete -c slirp -n '__fish_seen_subcommand_from learn' -F
complete -c slirp -n '__fish_seen_subcommand_from learn' -l against -r -F \
    -d 'print only what this policy file does not allow yet'
complete -c slirp -n '__fish_seen_subcommand_from learn' -l min -x \
    -d 'fewer than N connections become a comment'
complete -c slirp -n '__fish_seen_subcommand_from learn' -l since -x \
    -d 'only events since then, in UTC: 2026-11-29, 2026-11-29T02:35:16, or how long ago: 90s, 10m, 2h, 7d'
complete -c slirp -n '__fish_seen_subcommand_from learn' -s h -l help \
    -d 'print the text of --help'

complete -c slirp -n '__fish_seen_subcommand_from approve' -F
complete -c slirp -n '__fish_seen_subcommand_from approve' -l save -r -F \
    -d 'append decisions for the session to this policy file, as rules'
complete -c slirp -n '__fish_seen_subcommand_from approve' -s h -l help \
    -d 'print the text of --help'

complete -c slirp -n '__fish_seen_subcommand_from events' -F
complete -c slirp -n '__fish_seen_subcommand_from events' -l json \
    -d 'print the objects of the audit log; slirp-egress(7) has its schema'
complete -c slirp -n '__fish_seen_subcommand_from events' -s h -l help \
    -d 'print the text of --help'

complete -c slirp -n '__fish_seen_subcommand_from top' -F
complete -c slirp -n '__fish_seen_subcommand_from top' -l once \
    -d 'print flows and names without flows instead, and end'
complete -c slirp -n '__fish_seen_subcommand_from top' -l json \
    -d 'print all that is known, as one JSON object (with --once)'
complete -c slirp -n '__fish_seen_subcommand_from top' -s h -l help \
    -d 'print the text of --help'

complete -c slirp -n '__fish_seen_subcommand_from ls' -f
complete -c slirp -n '__fish_seen_subcommand_from ls' -l json \
    -d 'print JSON'
complete -c slirp -n '__fish_seen_subcommand_from ls' -l state-dir -r -F \
    -d 'where attachments are written down'
complete -c slirp -n '__fish_seen_subcommand_from ls' -s h -l help \
    -d 'print the text of --help'

complete -c slirp -n '__fish_seen_subcommand_from rm' -f
complete -c slirp -n '__fish_seen_subcommand_from rm' -l state-dir -r -F \
    -d 'where attachments are written down'
complete -c slirp -n '__fish_seen_subcommand_from rm' -s h -l help \
    -d 'print the text of --help'

complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -f -a 'up down'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l ports -x \
    -d 'publish [IP:]PORT:PORT[/PROTOCOL],...'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l mtu -x \
    -d 'MTU, 1500 to 65521 (default 1500)'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l cidr -x \
    -d 'IPv4 network (default 10.0.2.0/24)'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l ipv6 -f \
    -d 'IPv6 as well (default false)'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l ifname -x \
    -d 'interface (default eth0)'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l dns -f \
    -d 'the DNS service, 10.0.2.3 (default true)'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l mac -x \
    -d 'the interface\'s Ethernet address'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l disable-host-loopback -f \
    -d 'its gateway does not lead to the host (default false)'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l attach-shared -f \
    -d 'a network even if the network namespace is joined by path'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l policy -x \
    -d 'where it may go: RULE[;RULE]...'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l rate-in -x \
    -d 'bits a second that it receives: N[k|M|G][,burst=BYTES]'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l rate-out -x \
    -d 'bits a second that it sends'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l policy-file -r -F \
    -d 'a file of such rules'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l audit-log -r -F \
    -d 'append what the rules decide, as lines of JSON'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l audit -x -a 'denied decisions all' \
    -d 'how much: denied, decisions (default) or all'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l audit-required -f \
    -d 'refuse new connections and lookups while the log cannot be written'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l control-socket -r -F \
    -d 'a socket for policy, questions, events and rates'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l metrics -x \
    -d 'serve OpenMetrics at unix:PATH, 127.0.0.1:PORT or [::1]:PORT'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l sandbox -f \
    -d 'confine the process that carries the traffic (default true)'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l log-file -r -F \
    -d 'where hook and network say what happens'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -l state-dir -r -F \
    -d 'where attachments are written down'
complete -c slirp -n '__fish_seen_subcommand_from oci-hook' -s h -l help \
    -d 'print the text of --help'
