//! TAP devices opened in the namespaces of another process, as root and as an ordinary user.
//!
//! Needs network namespaces, `/dev/net/tun` and iproute2. Without them the tests say `SKIPPED` and
//! pass, unless `SLIRP_REQUIRE_NETNS=1`.

#![cfg(feature = "host")]
#![expect(clippy::disallowed_methods, reason = "the harness lives on the host side")]
#![expect(clippy::unwrap_used, reason = "a failed step of the harness fails the test")]

use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use slirp_core::MacAddr;
use slirp_core::config::Offload;
use slirp_core::link::{OffloadCeiling, Tap};
use slirp_core::netns::{
    AttachError, Configuration, Ipv6Configuration, NamespaceTarget, TapRequest, create_tap,
    interface_mac, open_tap, open_tap_up_to,
};
use slirp_core::plan::{Ipv6Plan, SlirpNetwork};

/// Set in the copy of this test that runs as an ordinary user.
const AS_USER: &str = "SLIRP_TEST_AS_USER";

/// One test at a time: one of them counts the descriptors of the process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process in a user and network namespace of its own; it ends with this value.
struct Guest {
    process: Child,
    _lifeline: ChildStdin,
    _turn: MutexGuard<'static, ()>,
}

impl Guest {
    fn start() -> Option<Self> {
        let turn = turn();
        let spawned = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net"])
            .args(["sh", "-c", ": <>/dev/net/tun && ip link >&2 && echo ready && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut process) = spawned else {
            skip("unshare(1) cannot be started");
            return None;
        };
        let lifeline = process.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "ready\n" {
            drop(lifeline);
            process.wait().unwrap();
            skip("no user and network namespaces, no /dev/net/tun, or no iproute2");
            return None;
        }
        Some(Self { process, _lifeline: lifeline, _turn: turn })
    }

    fn target(&self) -> NamespaceTarget {
        NamespaceTarget::of_pid(i32::try_from(self.process.id()).unwrap()).unwrap()
    }

    /// Runs a command in the namespaces and returns what it printed.
    fn run(&self, command: &str) -> String {
        let output = Command::new("nsenter")
            .args(["--user", "--net", "--preserve-credentials"])
            .args(["--target", &self.process.id().to_string()])
            .args(["sh", "-c", command])
            .output()
            .unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Our own child, not waited for yet, so its number is still its own.
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

#[expect(clippy::print_stderr, reason = "a test that proves nothing must say so")]
fn skip(why: &str) {
    let required = std::env::var("SLIRP_REQUIRE_NETNS").is_ok_and(|value| value == "1");
    assert!(!required, "a privilege is missing: {why}");

    eprintln!("SKIPPED: {why}");
}

fn request(name: &str) -> TapRequest {
    let configure = Some(Configuration::for_plan(&SlirpNetwork::default(), 1500));
    TapRequest { name: name.to_owned(), configure }
}

fn bare(name: &str) -> TapRequest {
    TapRequest { name: name.to_owned(), configure: None }
}

fn assert_configured_device(guest: &Guest) {
    let mac = MacAddr([2, 0, 0, 1, 2, 3]);
    let mut request = request("tap0");
    request.configure.as_mut().unwrap().mac = Some(mac);
    let tap = open_tap(&guest.target(), &request).unwrap();
    assert_eq!(tap.name(), "tap0");
    assert_eq!(tap.mac().unwrap(), Some(mac));
    // Datagram segmentation came with Linux 6.2; everything else is older than any kernel in use.
    assert_eq!(Offload { udp_segmentation: true, ..tap.offload() }, Offload::FULL);
    let link = guest.run("ip addr show dev tap0");
    for part in [
        "<BROADCAST,MULTICAST,UP,LOWER_UP>",
        "mtu 1500",
        "qlen 1000",
        "link/ether 02:00:00:01:02:03",
        "inet 10.0.2.100/24 brd 10.0.2.255",
    ] {
        assert!(link.contains(part), "{part} in {link}");
    }
    assert!(guest.run("ip link show dev lo").contains("<LOOPBACK,UP,LOWER_UP>"));
    let route = guest.run("ip route");
    assert!(route.contains("default via 10.0.2.2 dev tap0"), "{route}");
}

#[test]
fn configured_device_has_address_route_mtu_and_all_offloads() {
    let Some(guest) = Guest::start() else { return };
    assert_configured_device(&guest);
}

#[test]
fn ordinary_user_gets_the_same_device() {
    if std::env::var_os(AS_USER).is_some() || !nix::unistd::geteuid().is_root() {
        let Some(guest) = Guest::start() else { return };
        return assert_configured_device(&guest);
    }
    // A device file that everybody may open, as distributions have it, in a mount namespace of our
    // own; status 77 says that this is not to be had.
    let script = "mount -t tmpfs -o mode=755 tmpfs /dev/net && \
                  mknod -m 666 /dev/net/tun c 10 200 || exit 77; \
                  exec setpriv --reuid 1000 --regid 1000 --clear-groups \
                  \"$0\" --exact ordinary_user_gets_the_same_device --nocapture";
    let turn = turn();
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(AS_USER, "1")
        .status()
        .unwrap();
    drop(turn);
    match status.code() {
        Some(0) => {}
        Some(77 | 126 | 127) => skip("no mount namespace, no setpriv(1), or no access to the test"),
        other => panic!("the test failed as an ordinary user: {other:?}"),
    }
}

#[test]
fn configuring_twice_changes_nothing() {
    let Some(guest) = Guest::start() else { return };
    guest.run("ip tuntap add name tap0 mode tap");
    drop(open_tap(&guest.target(), &request("tap0")).unwrap());
    let _tap = open_tap(&guest.target(), &request("tap0")).unwrap();
    assert_eq!(guest.run("ip route").matches("default").count(), 1);
    assert_eq!(guest.run("ip -4 addr show dev tap0").matches("inet ").count(), 1);
}

#[test]
fn persistent_devices_of_any_make_are_attached_to_with_offloads() {
    let Some(guest) = Guest::start() else { return };
    for (name, extra) in [("p0", ""), ("p1", "vnet_hdr"), ("p2", "multi_queue")] {
        guest.run(&format!("ip tuntap add name {name} mode tap {extra} && ip link set {name} up"));
        let tap = open_tap(&guest.target(), &bare(name)).unwrap();
        assert!(tap.offload().tcp_segmentation, "{name}");
        assert!(guest.run(&format!("ip link show dev {name}")).contains("MULTICAST,UP,LOWER_UP"));
    }
}

#[test]
fn taken_name_is_busy_and_an_empty_name_is_chosen_by_the_kernel() {
    let Some(guest) = Guest::start() else { return };
    let _first = open_tap(&guest.target(), &bare("a-name-that-is-too-long")).unwrap();
    let error = open_tap(&guest.target(), &bare("a-name-that-is-")).unwrap_err();
    assert_eq!(error.to_string(), "ioctl(TUNSETIFF): Device or resource busy");
    assert_eq!(open_tap(&guest.target(), &request("")).unwrap().name(), "tap0");
    let mut bad = request("tap1");
    bad.configure.as_mut().unwrap().mac = Some(MacAddr([1, 0, 0, 0, 0, 1]));
    let error = open_tap(&guest.target(), &bad).unwrap_err();
    assert_eq!(error.to_string(), "cannot set MAC address: Cannot assign requested address");
}

#[test]
fn offloads_are_given_up_step_by_step() {
    let Some(guest) = Guest::start() else { return };
    let none = Offload::default();
    let header = Offload { vnet_header: true, ..none };
    let checksum = Offload { checksum: true, ..header };
    let tcp = Offload { tcp_segmentation: true, ..checksum };
    for (ceiling, expected) in [
        (OffloadCeiling::TcpSegmentation, tcp),
        (OffloadCeiling::Checksum, checksum),
        (OffloadCeiling::Header, header),
        (OffloadCeiling::Nothing, none),
    ] {
        let tap = open_tap_up_to(&guest.target(), &request("tap0"), ceiling).unwrap();
        assert_eq!(tap.offload(), expected, "{ceiling:?}");
    }
}

#[test]
fn foreign_device_without_header_is_adopted_without_offloads() {
    let Some(guest) = Guest::start() else { return };
    let ours = open_tap_up_to(&guest.target(), &request("tap0"), OffloadCeiling::Nothing).unwrap();
    assert!(guest.run("ip link show dev tap0").contains("qlen 10000"));
    let foreign = Tap::adopt(ours.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!(foreign.offload(), Offload::default());
    // The guest may or may not have announced itself by now; the read must not block.
    let read = foreign.read(&mut [0; 2048]);
    assert!(read.is_ok() || read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
}

#[test]
fn hundred_devices_leave_no_descriptor_and_no_zombie() {
    let Some(guest) = Guest::start() else { return };
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let target = guest.target();
    let before = descriptors();
    for _ in 0..100 {
        drop(open_tap(&target, &request("tap0")).unwrap());
    }
    assert_eq!(descriptors(), before);
    let own = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, parent) = (fields.next(), fields.next());
        assert!(state != Some("Z") || parent != Some(own.as_str()), "a zombie: {stat}");
    }
}

#[test]
fn namespace_by_path_is_entered_by_its_owner_and_an_interface_is_created_once() {
    let Some(guest) = Guest::start() else { return };
    let path = format!("/proc/{}/ns/net", guest.process.id());
    let target = NamespaceTarget::of_path(path.as_ref()).unwrap();
    assert!(target.user().is_some(), "the guest has a user namespace of its own");
    guest.run("ip tuntap add name tap7 mode tap");
    let taken = TapRequest { name: "tap7".into(), configure: None };
    let error = create_tap(&target, &taken).unwrap_err();
    assert_eq!(error.to_string(), "interface name: File exists");

    let mut configuration = Configuration::for_plan(&SlirpNetwork::default(), 1500);
    configuration.metric = Some(77);
    configuration.ipv6 = Some(Ipv6Configuration::for_plan(&Ipv6Plan::default()));
    let request = TapRequest { name: "tap8".into(), configure: Some(configuration) };
    let tap = create_tap(&target, &request).unwrap();
    let shown = guest.run("ip -4 route; ip -6 route; ip -6 addr show tap8");
    for line in [
        "default via 10.0.2.2 dev tap8 metric 77",
        "default via fd00::2 dev tap8 metric 77",
        "fd00::100/64",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert_eq!(interface_mac(&target, "tap8").unwrap(), tap.mac().unwrap());
    assert_eq!(interface_mac(&target, "tap9").unwrap(), None);
}

#[test]
fn path_that_is_no_network_namespace_is_refused() {
    for path in ["/proc/self/status", "/proc/self/ns/user"] {
        let error = NamespaceTarget::of_path(path.as_ref()).unwrap_err();
        assert!(matches!(error, AttachError::NotNetwork(_)), "{error}");
    }
    // In some containers our own network namespace belongs to an outer user namespace.
    match NamespaceTarget::of_path("/proc/self/ns/net".as_ref()) {
        Ok(own) => assert!(own.user().is_none(), "it belongs to our user namespace"),
        Err(error) => assert!(matches!(error, AttachError::ForeignOwner(_)), "{error}"),
    }
}

#[test]
fn own_network_namespace_is_refused_unless_that_is_meant() {
    let target = || NamespaceTarget::from_paths("/proc/self/ns/net".as_ref(), None).unwrap();
    for error in [
        open_tap(&target(), &bare("tap0")).unwrap_err(),
        create_tap(&target(), &bare("tap0")).unwrap_err(),
    ] {
        assert!(matches!(error, AttachError::OwnNamespace(_)), "{error}");
    }
    // That interface exists, so none is made.
    let taken = create_tap(&target().even_our_own(), &bare("lo")).unwrap_err();
    assert!(!matches!(taken, AttachError::OwnNamespace(_)), "{taken}");
}
