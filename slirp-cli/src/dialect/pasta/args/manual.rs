//! What pasta(1) says about each option, in mdoc(7). A test makes the page's list of options of it.

use super::table::OptionId;

/// The option's entry below its names.
pub(super) const fn manual(option: OptionId) -> &'static str {
    match option {
        OptionId::ConfigNet => {
            "\
Set the guest's interface up: addresses, routes and the MTU.
Router advertisements are off then.
Default: the interface stays down, and only the loopback device is set up."
        }
        OptionId::Debug => {
            "\
Say more on stderr, with the time, and nothing to the system's log.
The last one of
.Fl d
and
.Fl q
counts.
Default: off."
        }
        OptionId::Trace => {
            "\
Say something about every packet as well.
Default: off."
        }
        OptionId::Quiet => {
            "\
Say only what is wrong.
Default: a summary on stderr at the start; with
.Ar COMMAND
the option is implied unless
.Fl d
is given."
        }
        OptionId::Foreground => {
            "\
Stay in the foreground.
Default: the process ends with status 0 once the network is ready, and a daemon
carries the packets.
With
.Ar COMMAND
the option is implied."
        }
        OptionId::Stderr => {
            "\
Accepted for old callers, without an effect.
Default: messages go to stderr until the daemon starts."
        }
        OptionId::LogFile => {
            "\
Write messages to this file instead of to the system's log.
It may be a device or a FIFO.
Default: the system's log."
        }
        OptionId::LogSize => {
            "\
Largest size of the log file in bytes, at least 40960, if it is a regular file.
The oldest part goes first.
Default: 1048576."
        }
        OptionId::RunAs => {
            "\
Identity to take on when started as root: a user and a group, by name or number.
It is taken on once the network is connected and all files are open; with
COMMAND before, so that COMMAND and its files are that user's.
Default: the caller's."
        }
        OptionId::ConfPath => {
            "\
Path of a socket at which
.Xr pesto 1
changes the rules for ports.
Default: none."
        }
        OptionId::Help => {
            "\
Print the options and end.
Acts at once: arguments to the right of it are not looked at."
        }
        OptionId::Version => {
            "\
Print the version and end, at once as well.
The first line begins with the date of the interface that is offered.
Whether an option exists can be asked by
.Ql pasta Ar --option Fl Fl version ."
        }
        OptionId::Pcap => {
            "\
Record the guest's frames in this file, for
.Xr tcpdump 8
and Wireshark.
Default: nothing is recorded."
        }
        OptionId::Pid => {
            "\
Write the number of the process to this file before the network is ready.
It has the mode 0600 and is not removed at the end.
Default: none."
        }
        OptionId::Mtu => {
            "\
MTU of the guest's interface, from 68 to 65521.
DHCP and router advertisements tell it.
0 leaves it to the guest.
Default: 65520."
        }
        OptionId::Address => {
            "\
The guest's address, once a family.
Addresses of that family are not copied then.
Without a length the one of
.Fl n
counts for IPv4, or else the one of the address's class; for IPv6 it is 64.
Default: all addresses of the host's interface."
        }
        OptionId::Netmask => {
            "\
Netmask of the guest's IPv4 address, with dots or in bits.
Not together with a length at the address.
Default: as on the host."
        }
        OptionId::MacAddr => {
            "\
Our own MAC address on the link.
Default: 9a:55:9a:55:9a:55."
        }
        OptionId::Gateway => {
            "\
The guest's default gateway, once a family.
Routes of that family are not copied then.
Default: all routes of the host's interface."
        }
        OptionId::Interface => {
            "\
Interface of the host whose addresses, routes and name are copied.
Default: the one of
.Fl Fl outbound-if4
and
.Fl Fl outbound-if6 ,
or else of the first default route."
        }
        OptionId::Outbound => {
            "\
Address of the host that the guest's traffic leaves from, once a family.
Default: the host's routes decide."
        }
        OptionId::OutboundIf4 => {
            "\
Interface of the host by which the guest's IPv4 traffic leaves, and DNS queries
to resolvers with an IPv4 address.
Answers have to come by it as well.
The host itself is reached as without it.
Unless
.Fl i
is given, its IPv4 addresses and routes are copied, and it has to have an address.
Default: the host's routes decide."
        }
        OptionId::OutboundIf6 => {
            "\
Interface of the host by which the guest's IPv6 traffic leaves, and DNS queries
to resolvers with an IPv6 address.
Answers have to come by it as well.
The host itself is reached as without it, and so are link-local addresses.
Unless
.Fl i
is given, its IPv6 addresses and routes are copied, and it has to have an address.
Default: the host's routes decide."
        }
        OptionId::Dns => {
            "\
Resolver that DHCP, DHCPv6 and router advertisements tell the guest of.
Repeatable.
.Cm none
empties the list, and takes an earlier
.Fl Fl dns-forward
back.
Default: those of the host's
.Pa /etc/resolv.conf ."
        }
        OptionId::Search => {
            "\
Search domain that the guest is told of in the same way.
Repeatable.
.Cm none
empties the list.
Default: those of the host's
.Pa /etc/resolv.conf ."
        }
        OptionId::DhcpDns => {
            "\
Tell the guest of resolvers.
Default: it is not told."
        }
        OptionId::DhcpSearch => {
            "\
Tell the guest of search domains.
Default: it is not told."
        }
        OptionId::DnsForward => {
            "\
Send what the guest sends to port 53 or 853 of this address to a resolver of the
host, over TCP and UDP.
Once a family.
Default: none."
        }
        OptionId::DnsHost => {
            "\
That resolver, once a family.
Default: those of the host's
.Pa /etc/resolv.conf ."
        }
        OptionId::Hostname => {
            "\
Host name that DHCP tells the guest, and of the namespace of
.Ar COMMAND .
Default: none is told, and the namespace's is
.Ql pasta- Ns Ar HOST ."
        }
        OptionId::Fqdn => {
            "\
Full name that DHCP and DHCPv6 tell the guest.
Default: none."
        }
        OptionId::NoTcp => {
            "\
Drop the guest's TCP, and open no TCP ports.
Default: TCP is carried."
        }
        OptionId::NoUdp => {
            "\
Drop the guest's UDP, and open no UDP ports.
Default: UDP is carried."
        }
        OptionId::NoIcmp => {
            "\
Drop the guest's ICMP and ICMPv6.
Implies
.Fl Fl no-ndp .
Default: echo requests are carried."
        }
        OptionId::NoDhcp => {
            "\
Offer no DHCP.
Default: it is offered where there is an IPv4 gateway."
        }
        OptionId::NoNdp => {
            "\
Answer no neighbour solicitations.
Default: they are answered."
        }
        OptionId::NoDhcpv6 => {
            "\
Offer no DHCPv6.
Default: it is offered where there is an IPv6 address."
        }
        OptionId::NoRa => {
            "\
Send no router advertisements.
Default: they are sent unless
.Fl Fl config-net
is given."
        }
        OptionId::Freebind => {
            "\
Open ports also at addresses that the host does not have yet.
Default: such a port ends the start."
        }
        OptionId::MapHostLoopback => {
            "\
The host's 127.0.0.1 and ::1 have this address for the guest.
The last one of each family counts.
.Cm none
means
.Fl Fl no-map-gw
and takes earlier ones back.
Default: the gateway's address."
        }
        OptionId::NoMapGw => {
            "\
The gateway's address does not lead to the host's loopback.
The host stays reachable at the addresses that it does not share with the guest.
The default of
.Fl T
and
.Fl U
still does.
Default: it does."
        }
        OptionId::MapGuestAddr => {
            "\
The host's own address, which is the guest's as well, has this address for the
guest.
The last one of each family counts.
.Cm none
takes earlier ones back.
Default: none."
        }
        OptionId::Ipv4Only => {
            "\
IPv4 alone.
The last one of
.Fl 4
and
.Fl 6
counts.
Default: both families, as far as the host has them."
        }
        OptionId::Ipv6Only => {
            "\
IPv6 alone.
Default: both families, as far as the host has them."
        }
        OptionId::TcpPorts => {
            "\
TCP ports of the host that lead to the guest, see
.Sx PORTS .
Repeatable: each one adds its ports.
Default:
.Cm auto ."
        }
        OptionId::UdpPorts => {
            "\
UDP ports of the host that lead to the guest.
Repeatable.
Default:
.Cm auto ."
        }
        OptionId::TcpNs => {
            "\
TCP ports of the guest's loopback that lead to the host's loopback.
Repeatable.
Default:
.Cm auto :
.Cm none
keeps the guest away from servers at the host's loopback."
        }
        OptionId::UdpNs => {
            "\
UDP ports of the guest's loopback that lead to the host's loopback.
Repeatable.
Default:
.Cm auto ."
        }
        OptionId::NsIfname => {
            "\
Name of the guest's interface, at most 15 bytes.
Default: as on the host, or tap0 where the host has none."
        }
        OptionId::NsMacAddr => {
            "\
MAC address of the guest's interface.
Default: the kernel draws a random one."
        }
        OptionId::Userns => {
            "\
User namespace to join before the network namespace.
Default: the one of
.Ar PID ."
        }
        OptionId::Netns => {
            "\
Network namespace to join: a path, or a name in
.Pa /run/netns .
Not together with
.Ar PID
or
.Ar COMMAND .
Default: none."
        }
        OptionId::NetnsOnly => {
            "\
Stay in the user namespace of the caller.
Default: implied by
.Fl Fl netns
without
.Fl Fl userns ."
        }
        OptionId::NoNetnsQuit => {
            "\
Stay when the network namespace is gone.
Default: the program ends with status 0."
        }
        OptionId::HostLoToNsLo => {
            "\
Connections of the host's loopback to a port of
.Fl t
or
.Fl u
arrive at the guest's loopback, at the address that they were made to.
Default: they arrive at the guest's own address, and come from it."
        }
        OptionId::NoSplice => {
            "\
Connections of the host's loopback to a port of
.Fl t
or
.Fl u
arrive by the guest's interface, and come from the address of
.Fl Fl map-host-loopback .
Ports of
.Fl T
and
.Fl U
have no other way and stay.
Not together with
.Fl Fl host-lo-to-ns-lo .
Default: they are joined socket to socket."
        }
        OptionId::SpliceOnly => {
            "\
Connect the loopbacks alone: the guest gets no interface.
Clients of ports that do not come over the host's loopback are reset.
Implies
.Fl Fl host-lo-to-ns-lo .
Default: off."
        }
        OptionId::ChrootFallback => {
            "\
Accepted with a warning, without an effect: where the root cannot be exchanged
the start fails.
Default: off."
        }
        OptionId::NoCopyRoutes => {
            "\
Copy the default route alone.
Deprecated; only with
.Fl Fl config-net .
Default: all routes are copied unless
.Fl g
is given."
        }
        OptionId::NoCopyAddrs => {
            "\
Copy one address of each family alone.
Deprecated; only with
.Fl Fl config-net .
Default: all addresses are copied unless
.Fl a
is given."
        }
        OptionId::Stats => {
            "\
Accepted after
.Fl f ,
without an effect.
Default: none."
        }
        OptionId::Fd => {
            "\
Connected socket of a virtual machine, whose end ends the program with status 0.
.Nm pasta
accepts it with a warning, without an effect.
Default: none."
        }
        OptionId::Socket => {
            "\
Socket at which virtual machines connect, one after the other.
A socket at which somebody listens is not replaced.
.Nm passt
alone, as the following ones.
Default: the first of
.Pa /tmp/passt_1.socket
to
.Pa /tmp/passt_64.socket
at which nobody listens."
        }
        OptionId::SocketPath => {
            "\
Another name of
.Fl s .
Default: as there."
        }
        OptionId::OneOff => {
            "\
End with status 0 when the first virtual machine has hung up.
Default: the next one is awaited."
        }
        OptionId::NoDhcpDns => {
            "\
Do not tell the guest of resolvers.
Default: it is told."
        }
        OptionId::NoDhcpSearch => {
            "\
Do not tell the guest of search domains.
Default: it is told."
        }
        OptionId::VhostUser | OptionId::PrintCapabilities => {
            "\
.Nm passt
alone, and refused: virtual machines are connected by sockets that carry frames.
Default: off."
        }
        OptionId::RepairPath | OptionId::MigrateExit | OptionId::MigrateNoLinger => {
            "\
.Nm passt
alone; accepted with a warning, without an effect.
Default: none."
        }
    }
}
