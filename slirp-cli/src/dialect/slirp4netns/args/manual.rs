//! What slirp4netns(1) says about each option, in mdoc(7). A test makes the page's list of options
//! of it.

use super::table::OptionId;

/// The option's entry below its names.
pub(super) const fn manual(option: OptionId) -> &'static str {
    match option {
        OptionId::Configure => {
            "\
Set the device up: the address
.Pq .100 of the network ,
the netmask, a default route by way of the gateway, the MTU; and set the
loopback device up.
Default: the device stays as it is made, down and without an address.
No effect with a descriptor."
        }
        OptionId::ExitFd => {
            "\
End with status 0 when the other end of this file descriptor is closed, or at
once if the descriptor is not open.
Default: none."
        }
        OptionId::ReadyFd => {
            "\
Write the byte
.Ql 1
to this file descriptor and close it once the network is ready and the API
socket and the published ports are open.
If the start fails it is closed without a byte.
A descriptor that is not open for writing is warned about.
Default: none."
        }
        OptionId::Mtu => {
            "\
MTU of the device in bytes, 68 to 65521.
Default: 1500."
        }
        OptionId::EnableIpv6 => {
            "\
Offer IPv6 as well: router advertisements, neighbour discovery, DHCPv6.
(Experimental.)
With
.Fl Fl configure
the default route stays when the guest turns forwarding on: accept_ra is set to
2, where /proc/sys can be written.
Default: off."
        }
        OptionId::ApiSocket => {
            "\
Take requests on a
.Ux Ns -domain
socket of this path, see
.Sx API SOCKET .
A file that is there before is replaced.
Default: none."
        }
        OptionId::Cidr => {
            "\
IPv4 network of the guest.
The prefix is 1 to 25 bits long, and all bits behind it are zero.
Default: 10.0.2.0/24."
        }
        OptionId::DisableHostLoopback => {
            "\
Keep the guest away from the loopback addresses of the host: the gateway's
address, 127.0.0.0/8 and all other spellings lead nowhere.
The nameserver's address keeps working.
Groups of the host's link (ff02::/16, 224.0.0.0/24) are closed as well, since
services of the host may have joined them.
Groups of the host's interface (ff01::/16) are never reached.
Default: the gateway's address stands for 127.0.0.1 and ::1 of the host."
        }
        OptionId::NoHostLoopback => {
            "\
Deprecated name of
.Fl Fl disable-host-loopback ."
        }
        OptionId::NetnsType => {
            "\
What the first argument is:
.Cm pid ,
.Cm path
or
.Cm tapfd .
Any other word means
.Cm path .
Default:
.Cm pid ."
        }
        OptionId::UsernsPath => {
            "\
User namespace to enter before the network namespace.
Default: with a
.Ar PID ,
the one that owns the network namespace of the process; with a
.Ar PATH ,
none."
        }
        OptionId::EnableSandbox => {
            "\
Run in a mount namespace that holds no file at all, and give up all capabilities
but
.Dv CAP_NET_BIND_SERVICE .
A second process,
.Ql slirp-outside ,
stays outside.
It reads
.Pa /etc/resolv.conf ,
wherever that leads, removes the file of the API socket at the end, and watches
the
.Ar PATH
of
.Fl Fl exit-with-netns .
If the second process ends first, that path counts as gone.
When an ordinary user starts the program, it enters the user namespace of the
guest for this, and cannot bind ports of the host below
.Va net.ipv4.ip_unprivileged_port_start
afterwards.
Default: off."
        }
        OptionId::CreateSandbox => {
            "\
Deprecated name of
.Fl Fl enable-sandbox ."
        }
        OptionId::EnableSeccomp => {
            "\
Allow only the system calls that a running network needs.
Any other call kills the process.
(Experimental.)
Default: off."
        }
        OptionId::OutboundAddr => {
            "\
Source address of the guest's IPv4 traffic: an address of the host, or the name
of an interface, which stands for its first IPv4 address at the start.
The address holds for TCP, UDP, ping, and queries to resolvers that are neither
on the host's loopback nor link-local.
Services on the host's loopback see it, too.
An address that the host does not have is refused at the start.
While it is gone later, the guest's network is unreachable.
The option sets the source address, not the route.
If the host routes by source, as with a VPN, add a rule:
.Ql ip rule add from 192.0.2.9 table 100 ,
see
.Xr ip-rule 8 .
(Experimental.)
Default: the host's routes decide."
        }
        OptionId::OutboundAddr6 => {
            "\
The same for IPv6.
(Experimental.)
Default: the host's routes decide."
        }
        OptionId::DisableDns => {
            "\
Do not answer DNS queries at the nameserver's address, and do not tell the guest
about it.
It is an address like any other then.
Default: queries are answered."
        }
        OptionId::MacAddress => {
            "\
Link-layer address of the device, up to six bytes in hexadecimal with colons
between them.
Missing bytes are zero.
Needs
.Fl c .
Default: the kernel draws a random one."
        }
        OptionId::TargetType => {
            "\
How the guest is connected:
.Cm netns ,
by a TAP device in a network namespace, or by a socket at which a virtual
machine connects, see
.Sx Virtual machines :
.Cm bess
for User Mode Linux,
.Cm stream
(not in slirp4netns 1.3.3) for QEMU.
A socket cannot be combined with
.Fl Fl configure ,
.Fl Fl netns-type
and
.Fl Fl userns-path .
Default:
.Cm netns ."
        }
        OptionId::Help => {
            "\
Print the options and end.
Acts at once: arguments to the right of it are not looked at."
        }
        OptionId::Version => {
            "\
Print the version and end, at once as well.
The first line names the release whose interface is offered, the second one this
program."
        }
        OptionId::Cidr6 => {
            "\
IPv6 network of the guest.
Needs
.Fl 6 .
Default: fd00::/64.
Ours alone, see
.Xr slirp4netns-extensions 7 ."
        }
        OptionId::Publish => {
            "\
Forward ports of the host to the guest.
.Ar SPEC
is
.Sm off
.Oo Ar PROTO : Oc Oo Ar ADDR : Oc Ar PORT Oo - Ar PORT Oc : Oo Ar GUEST : Oc Ar PORT .
.Sm on
Repeatable: each one adds its ports.
Default: none.
Ours alone."
        }
        OptionId::Dns => {
            "\
Ask this resolver instead of those of the host's
.Pa /etc/resolv.conf .
Repeatable: resolvers are asked in order.
Default: those of the file.
Ours alone."
        }
        OptionId::SearchDomain => {
            "\
Tell the guest, by DHCP and router advertisement, to look up short names in
this domain.
Repeatable: the guest tries them in order.
Default: none.
Ours alone."
        }
        OptionId::LogLevel => {
            "\
Log messages of this level and above on stderr:
.Cm error ,
.Cm warn ,
.Cm info ,
.Cm debug
or
.Cm trace .
Overrides
.Ev SLIRP_LOG .
Default:
.Cm warn .
Ours alone."
        }
        OptionId::Pcap => {
            "\
Record the guest's frames in this file or FIFO, for
.Xr tcpdump 8
and Wireshark.
Default: nothing is recorded.
Ours alone, see
.Xr slirp4netns-extensions 7 ."
        }
        OptionId::ExitWithNetns => {
            "\
End when the process
.Ar PID
has ended, or the
.Ar PATH
is gone.
Cannot be combined with a descriptor or a virtual machine.
Default: the network outlives both.
Ours alone, see
.Xr slirp4netns-extensions 7 ."
        }
        OptionId::BusyPoll => {
            "\
While small requests and their answers follow each other closely, poll for events
for up to this many microseconds before sleeping, 0 to 1000.
0 turns this off.
Default: 20.
Ours alone, see
.Xr slirp4netns-extensions 7 ."
        }
        OptionId::Allow => {
            "\
Let the guest go there, by address, port or name.
Once one option or file has given a rule, the guest may go nowhere that no rule
allows.
Repeatable.
Default: the guest may go everywhere.
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::Deny => {
            "\
Keep the guest away from there, whatever other rules allow.
Repeatable.
Default: none.
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::Ask => {
            "\
Have somebody decide whether the guest may go there.
While nobody is connected who may decide, it may not.
Repeatable.
Default: none.
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::Policy => {
            "\
Read rules from this file, one a line.
Repeatable.
Default: the file that
.Ev SLIRP_POLICY
names, which is read in any case.
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::PolicyMode => {
            "\
.Cm enforce
obeys the rules.
.Cm audit
lets what they refuse pass; the host's loopback and other protected addresses stay
closed.
Default:
.Cm enforce .
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::AuditLog => {
            "\
Append what the rules decide to this file, one JSON object a line.
A file that is missing is created with the mode 0600.
.Ql fd:N
is the descriptor
.Ar N
of the caller, open for writing; a file of that name is
.Ql ./fd:N .
Default: no log.
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::Audit => {
            "\
How much the log has:
.Cm denied ,
what is refused;
.Cm decisions ,
every verdict about a connection, and refused lookups;
.Cm all ,
every lookup and every name in first bytes, too.
Only with
.Fl Fl audit-log .
Default:
.Cm decisions .
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::AuditRequired => {
            "\
Refuse new connections and fail lookups while the log cannot be written.
Only with
.Fl Fl audit-log .
Default: the log loses lines, says how many, and nothing else changes.
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::ControlSocket => {
            "\
Path of a socket, of mode 0600, for who decides: it shows and changes policy and
rates, answers questions, and tells of events.
The socket is removed at the end.
Keep it out of the guest's reach.
Default: none.
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::ControlFd => {
            "\
The same for one client alone: a descriptor of the caller that is one end of a
socket pair, and has no name that a guest could find.
Not with
.Fl Fl control-socket .
Default: none.
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::RateIn => {
            r"
How many bits a second the guest may receive from outside:
.Ar N Ns Op Cm k | M | G ,
followed by
.Cm \&,burst= Ns Ar BYTES
if need be: how many bytes may pass at once after a pause.
Suffixes are decimal.
Default: no limit; with one, a burst of 50 ms, and at least 65536 bytes.
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::RateOut => {
            "\
The same for what the guest sends to outside.
Default: no limit.
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::Metrics => {
            "\
Serve counters in the format of OpenMetrics, at /metrics over HTTP.
.Ar ADDRESS
is
.Ql unix:PATH
for a socket of mode 0600, or a port of 127.0.0.1 or ::1, such as
.Ql 127.0.0.1:9100
or
.Ql [::1]:9100 .
Default: none.
Ours alone, see
.Xr slirp-egress 7 ."
        }
        OptionId::MetricsMembers => {
            "\
Count the members of a shared network one by one.
This program has one guest; the option is for networks with several.
Only with
.Fl Fl metrics .
Default: together.
Ours alone, see
.Xr slirp-egress 7 ."
        }
    }
}
