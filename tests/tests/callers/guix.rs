//! The device as a descriptor, under a system call filter of the caller: the Guix daemon's way for
//! builds with network.
//!
//! Guix opens the TAP in the build's namespaces and starts `slirp4netns --netns-type=tapfd` in
//! fresh ones, as root of a user namespace, with nothing but `resolv.conf` and `hosts` in `/etc`,
//! an empty `/run`, and a filter that leaves it Internet sockets only. Here bubblewrap makes these
//! namespaces and loads that filter.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, Ipv4Addr};

use nix::libc;
use slirp_tests::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Opens the guest's TAP as `open tap` there, and runs the rest of its arguments with the device as
/// descriptor 10 and the filter as 11. The guest's side sends the descriptor over a socket, as
/// Guix's does.
const LAUNCHER: &str = "import array, fcntl, os, socket, struct, sys
guest, filter, *command = sys.argv[1:]
here, there = socket.socketpair()
if os.fork() == 0:
    code = '''import array, fcntl, socket, struct
there = socket.socket(fileno=%d)
tun = open(\"/dev/net/tun\", \"r+b\", buffering=0)
# TUNSETIFF with IFF_TAP | IFF_NO_PI
fcntl.ioctl(tun, 0x400454ca, struct.pack(\"16sH22x\", b\"tap0\", 0x1002))
there.sendmsg([b\"tap\"],
    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array(\"i\", [tun.fileno()]))])
''' % there.fileno()
    os.set_inheritable(there.fileno(), True)
    os.execvp('nsenter', ['nsenter', '--target', guest, '--user', '--net', '--preserve-credentials',
                          '/usr/bin/python3', '-c', code])
there.close()
_, control, _, _ = here.recvmsg(16, socket.CMSG_SPACE(4))
tun = array.array('i', control[0][2])[0]
os.wait()
os.dup2(tun, 10)
os.dup2(os.open(filter, os.O_RDONLY), 11)
os.execvp(command[0], command)
";

/// One instruction of a seccomp filter, as the kernel reads it (`struct sock_filter`).
fn instruction(code: u32, jump_true: u8, jump_false: u8, operand: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..2].copy_from_slice(&u16::try_from(code).unwrap().to_ne_bytes());
    bytes[2] = jump_true;
    bytes[3] = jump_false;
    bytes[4..].copy_from_slice(&operand.to_ne_bytes());
    bytes
}

fn load(offset: u32) -> [u8; 8] {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn jump_if_equal(operand: u32, jump_true: u8, jump_false: u8) -> [u8; 8] {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jump_true, jump_false, operand)
}

fn answer(with: u32) -> [u8; 8] {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, with)
}

/// What Guix's filter does: sockets of the Internet only, a socketpair(2) that pretends, no
/// ptrace(2), no system call that is newer than `newest`.
fn filter(newest: u32) -> Vec<u8> {
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const PRETEND: u32 = libc::SECCOMP_RET_ERRNO;
    /// Offsets in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = 16;
    let deny = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    [
        load(NUMBER),
        jump_if_equal(number(libc::SYS_socket), 0, 5),
        load(FIRST_ARGUMENT),
        jump_if_equal(libc::AF_INET.cast_unsigned(), 2, 0),
        jump_if_equal(libc::AF_INET6.cast_unsigned(), 1, 0),
        answer(deny),
        answer(ALLOW),
        jump_if_equal(number(libc::SYS_socketpair), 0, 1),
        answer(PRETEND),
        jump_if_equal(number(libc::SYS_ptrace), 0, 1),
        answer(deny),
        instruction(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 0, 1, newest),
        answer(deny),
        answer(ALLOW),
    ]
    .concat()
}

/// The words that put a program where Guix puts it: descriptor 10 is the guest's TAP.
fn cage(world: &World, newest: u32) -> Vec<String> {
    let folder = world.folder().to_str().unwrap();
    let launcher = format!("{folder}/launcher.py");
    let filter_file = format!("{folder}/filter");
    std::fs::write(&launcher, LAUNCHER).unwrap();
    std::fs::write(&filter_file, filter(newest)).unwrap();
    let guest = world.guest.pid().to_string();
    let bwrap = "bwrap --unshare-user --unshare-pid --unshare-ipc --unshare-uts --as-pid-1 \
        --die-with-parent
        --uid 0 --gid 0 --cap-add ALL --ro-bind / / --tmpfs /etc
        --ro-bind /etc/resolv.conf /etc/resolv.conf
        --ro-bind /etc/hosts /etc/hosts --perms 0700 --tmpfs /run
        --proc /proc --dev /dev --seccomp 11";
    let launch = ["/usr/bin/python3", &launcher, &guest, &filter_file].map(str::to_owned);
    launch.into_iter().chain(bwrap.split_whitespace().map(str::to_owned)).collect()
}

/// Starts it there.
fn start(world: &World, newest: u32, options: &[&str]) -> Slirp {
    let cage = cage(world, newest);
    let cage: Vec<_> = cage.iter().map(String::as_str).collect();
    let fixed = ["--netns-type=tapfd", "--enable-sandbox", "--enable-ipv6"];
    let slirp = world
        .slirp()
        .bare()
        .options(&fixed)
        .options(options)
        .positionals(&["10"])
        .behind(&cage)
        .start();
    // What the build's side does in Guix.
    world.configure_tap_by_hand("tap0");
    world.guest.script(
        "echo 0 > /proc/sys/net/ipv6/conf/tap0/accept_ra
        ip addr add fd00::80/64 dev tap0 nodad; ip route add default via fd00::2",
    );
    slirp
}

/// The newest system call of the kernel series that a caller may have been built for.
const NEWEST: &[u32] = &[
    // cachestat (6.5)
    451,
    // io_pgetevents (4.18), so none of those that all architectures number alike, clone3(2) among
    // them
    334,
];

/// The world of an ordinary user's daemon, with a nameserver on the host's loopback.
fn daemon() -> Result<(World, Dnsmasq), Missing> {
    is_installed("bwrap")?;
    let world = World::ordinary()?;
    world.write_resolv_conf("nameserver 127.0.0.54\n");
    let dns = Dnsmasq::start(&world.host, Ipv4Addr::new(127, 0, 0, 54).into(), &[]);
    Ok((world, dns))
}

#[test]
fn device_by_descriptor_works_under_the_callers_filter() {
    for &newest in NEWEST {
        let (world, _dns) = needs!(daemon());
        let _far = web_server(&world.remote, (FAR, 80).into());
        let _far_v6 = web_server(&world.remote, (FAR_V6, 80).into());
        let _web = web_server(&world.host, (LOOPBACK, 8000).into());
        let _slirp = start(&world, newest, &["--disable-host-loopback"]);
        let curl = "curl --silent --show-error --max-time 50";
        let text = world.guest.script(&format!(
            "{curl} http://203.0.113.10/ http://[2001:db8:2::10]/
            {curl} -4 http://www.example.test/
            {curl} http://10.0.2.2:8000/ || echo $?"
        ));
        let seen = "visitor 198.51.100.1\nvisitor 2001:db8:1::1\nvisitor 198.51.100.1\n7\n";
        assert_eq!(text, seen, "newest call {newest}");
    }
}

/// The cage itself, without which the tests here prove nothing.
#[test]
fn cage_pretends_and_denies_as_it_should() {
    let (world, _dns) = needs!(daemon());
    let user = ["setpriv", "--reuid=1500", "--regid=1500", "--clear-groups", "--"];
    let mut argv: Vec<_> = user.map(str::to_owned).into_iter().collect();
    argv.extend(cage(&world, NEWEST[0]));
    let script = "import ctypes, os, socket
print(os.getuid(), sorted(os.listdir('/etc')), os.listdir('/run'))
socket.socket(socket.AF_INET6)
for family in socket.AF_UNIX, socket.AF_NETLINK:
    try: socket.socket(family)
    except OSError as error: print(error.strerror)
pair = (ctypes.c_int * 2)(-1, -1)
print(ctypes.CDLL(None).socketpair(socket.AF_UNIX, socket.SOCK_STREAM, 0, pair), *pair)
";
    argv.extend(["/usr/bin/python3", "-c", script].map(str::to_owned));
    let output = world.host.exec(&argv.iter().map(String::as_str).collect::<Vec<_>>());
    let expected = "0 ['hosts', 'resolv.conf'] []
Function not implemented
Function not implemented
0 -1 -1
";
    assert_eq!(output.stdout, expected, "{}", output.stderr);
}

/// Builds may be allowed to reach the host under its own name for itself.
#[test]
fn loopback_addresses_sent_to_the_device_reach_the_hosts_loopback() {
    let (world, _dns) = needs!(daemon());
    let _web = web_server(&world.host, (LOOPBACK, 8000).into());
    let _slirp = start(&world, NEWEST[0], &[]);
    world.guest.script(
        "echo 1 > /proc/sys/net/ipv4/conf/tap0/route_localnet
        ip addr del 127.0.0.1/8 dev lo
        ip route add 127.0.0.1 via 10.0.2.2 dev tap0 src 10.0.2.100",
    );
    let text =
        world.guest.script("curl --silent --show-error --max-time 50 http://127.0.0.1:8000/");
    assert_eq!(text, "visitor 127.0.0.1\n");
}
