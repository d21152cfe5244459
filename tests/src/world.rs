//! The three namespaces of one test and the addresses in them.
//!
//! The host namespace has its own `/etc` (an overlay, so that `resolv.conf` can be written and
//! renamed over) and its own `/dev/net/tun` with the mode 0666 that distributions give it. Nothing
//! outside is touched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::binary::{binary_under_test, pasta_under_test, pesto_under_test};
use crate::capture::Capture;
use crate::namespace::{Account, Namespace};
use crate::requirement::{Missing, check, is_there};
use crate::slirp::{SlirpBuilder, is_sandboxed_anyway};
use crate::wait::{PATIENCE, wait_until};

/// The host's address on the link to the remote.
pub const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// The remote's address on that link; the host's default route.
pub const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
/// A second remote on the link.
pub const REMOTE_2: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 3));
/// A remote behind the default route.
pub const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
/// The remote's IPv6 address on the link.
pub const REMOTE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));
/// An IPv6 remote behind the default route.
pub const FAR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10));
/// The virtual gateway, which stands for the host's loopback.
pub const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
/// The virtual nameserver.
pub const NAMESERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3));
/// The address that `--configure` gives the guest.
pub const GUEST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 100));

/// Where Debian's package has it.
const DISTRIBUTION_PASTA: &str = "/usr/bin/pasta";

/// A guest, a host and a remote world. Dropping it takes all of them down.
#[derive(Debug)]
pub struct World {
    /// Where the container lives.
    pub guest: Namespace,
    /// Where the binary runs.
    pub host: Namespace,
    /// Everything beyond the host.
    pub remote: Namespace,
    account: Account,
    folder: PathBuf,
}

impl World {
    /// A world whose guest and binary are root's.
    ///
    /// # Errors
    /// [`Missing`], when this machine lacks what that takes.
    pub fn root() -> Result<Self, Missing> {
        Self::of(Account::Root)
    }

    /// A world whose guest and binary are an ordinary user's.
    ///
    /// # Errors
    /// [`Missing`], when this machine lacks what that takes.
    pub fn ordinary() -> Result<Self, Missing> {
        Self::of(Account::Ordinary)
    }

    /// Builds the namespaces and the link between host and remote.
    ///
    /// # Errors
    /// [`Missing`], when this machine lacks what that takes.
    ///
    /// # Panics
    /// When a command that should work does not.
    pub fn of(account: Account) -> Result<Self, Missing> {
        check()?;
        let folder = fresh_folder();
        let remote = Namespace::plain();
        let host = Namespace::plain();
        host.script(&host_script(remote.pid()));
        remote.script(REMOTE_SCRIPT);
        std::fs::write(folder.join("guest-resolv.conf"), "nameserver 10.0.2.3\n")
            .expect("the test's folder is writable");
        let guest = Namespace::container(&host, account);
        guest.script(&format!(
            "ip link set lo up; mount --bind {}/guest-resolv.conf /etc/resolv.conf",
            folder.display()
        ));
        Ok(Self { guest, host, remote, account, folder })
    }

    /// The binary under test, aimed at this guest with `--configure`.
    pub fn slirp(&self) -> SlirpBuilder<'_> {
        SlirpBuilder::new(self)
    }

    /// Lets root's binary ping remotes: by raw sockets, or by ping sockets where it has none.
    pub fn let_root_ping(&self) {
        if is_sandboxed_anyway() {
            self.host.script("echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range");
        }
    }

    /// A folder of this test's own, removed with the world. Everybody may write to it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A copy of the binary under test for everybody, the only file of its folder: an ordinary user
    /// may be unable to walk to the build folder.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn reachable_binary(&self) -> PathBuf {
        self.reachable(binary_under_test(), "slirp4netns")
    }

    /// The same for the program `pasta`.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn reachable_pasta(&self) -> PathBuf {
        self.reachable(pasta_under_test(), "pasta")
    }

    /// The same for the program `pesto`.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn reachable_pesto(&self) -> PathBuf {
        self.reachable(pesto_under_test(), "pesto")
    }

    /// The same for the pasta of the distribution.
    ///
    /// # Errors
    /// [`Missing`], where it is not installed.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn reachable_distribution_pasta(&self) -> Result<PathBuf, Missing> {
        is_there(DISTRIBUTION_PASTA)?;
        Ok(self.reachable(Path::new(DISTRIBUTION_PASTA), "distribution/pasta"))
    }

    /// The same for the program at `path`, with this name.
    fn reachable(&self, path: &Path, name: &str) -> PathBuf {
        let copy = self.folder.join("bin").join(name);
        if !copy.exists() {
            // By another process: a descriptor of ours that writes to it could be inherited by a
            // child of another thread, and a file that is open for writing cannot be run.
            let status =
                Command::new("install").args(["-D", "--mode=0755"]).arg(path).arg(&copy).status();
            assert!(status.is_ok_and(|status| status.success()), "the binary can be copied");
        }
        copy
    }

    /// The owner of the guest.
    pub fn account(&self) -> Account {
        self.account
    }

    /// Writes the host's resolv.conf in place.
    pub fn write_resolv_conf(&self, text: &str) {
        self.host.script(&format!("printf '{}' > /etc/resolv.conf", text.replace('\n', "\\n")));
    }

    /// Replaces the host's resolv.conf by a new file, as network managers do.
    pub fn replace_resolv_conf(&self, text: &str) {
        self.host.script(&format!(
            "printf '{}' > /etc/resolv.conf.new; mv /etc/resolv.conf.new /etc/resolv.conf",
            text.replace('\n', "\\n")
        ));
    }

    /// Waits until the guest has an address from the router advertisement that begins with
    /// `prefix`, ready for use.
    pub fn wait_for_ipv6(&self, prefix: &str) {
        wait_until(PATIENCE, "an address from the router advertisement", || {
            let text = self.guest.script("ip -6 addr show dev tap0 scope global -tentative");
            text.contains(&format!("inet6 {prefix}"))
        });
    }

    /// Records the guest's `tap0`; the file is kept when the test fails.
    pub fn capture(&self) -> Capture {
        Capture::start(&self.guest, "tap0")
    }

    /// Default route and neighbour settings of the guest's tap are in place only with
    /// `--configure`; this is the same by hand, for tests which attach to a tap of their own.
    pub fn configure_tap_by_hand(&self, tap: &str) {
        self.guest.script(&format!(
            "ip addr add 10.0.2.100/24 dev {tap}; ip link set {tap} up; ip route add default via \
             10.0.2.2"
        ));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Left behind only where something still writes to it; the system cleans /tmp.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn fresh_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name =
        format!("slirp-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    // A folder of an earlier process with our id is as good as gone.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).expect("the temporary folder is writable");
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("the folder is ours");
    folder
}

fn host_script(remote: u32) -> String {
    // Numbers that differ: where both ends have the same, the kernel takes them for an ordinary
    // device and tells IPv6 of its carrier a second later (linkwatch_urgent_event); until then the
    // link is silent.
    format!(
        "ip link set lo up
        ip link add h0 index 7 type veth peer name r0 index 8 netns {remote}
        ip addr add 198.51.100.1/24 dev h0
        ip addr add 2001:db8:1::1/64 dev h0 nodad
        ip link set h0 up
        ip route add default via 198.51.100.2
        ip route add default via 2001:db8:1::2
        # A neighbour that does not answer is given up after 3 * 300 ms instead of 3 s.
        echo 300 > /proc/sys/net/ipv4/neigh/h0/retrans_time_ms
        echo 300 > /proc/sys/net/ipv6/neigh/h0/retrans_time_ms
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/upper /mnt/work
        mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
        rm -f /etc/resolv.conf
        echo 'nameserver 127.0.0.53' > /etc/resolv.conf
        mount -t tmpfs tmpfs /dev/net
        mknod /dev/net/tun c 10 200
        chmod 0666 /dev/net/tun"
    )
}

const REMOTE_SCRIPT: &str = "ip link set lo up
    ip addr add 198.51.100.2/24 dev r0
    ip addr add 198.51.100.3/24 dev r0
    ip addr add 203.0.113.10/32 dev lo
    ip addr add 2001:db8:1::2/64 dev r0 nodad
    ip addr add 2001:db8:2::10/128 dev lo nodad
    ip link set r0 up
    echo 1 > /proc/sys/net/ipv4/ip_forward
    echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
    echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
    echo 0 > /proc/sys/net/ipv6/icmp/ratelimit";
