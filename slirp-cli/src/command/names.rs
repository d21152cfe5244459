//! How names are looked up inside: `/etc/resolv.conf`.
//!
//! Owns its text and the mount that puts it in place. The file is on a file system in memory that
//! no folder shows, so nothing is left of it. Ways around it are closed too, those of nss-resolve,
//! nscd and avahi: resolvers of the host that the C library asks by sockets in `/run` would answer
//! from outside of this network.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::Names;
use super::failure::EntryStep as Step;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Sockets of nss-resolve(8), nscd(8) and avahi-daemon(8), which nss-mdns asks.
const SIDE_DOORS: [&str; 4] = [
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/nscd/socket",
    "/var/run/nscd/socket",
    "/run/avahi-daemon/socket",
];

/// Folders that can be covered for a moment, the usual one first.
const BASES: [&str; 6] = ["/tmp", "/mnt", "/srv", "/opt", "/proc", "/sys"];

const NONE: Option<&str> = None;

/// Puts our `/etc/resolv.conf` in place, in this process's own mount namespace. Returns false where
/// there is no such file to cover.
///
/// `are_slaves` tells that the mount namespace has another owner than the one it was copied from:
/// then no mount reaches back (mount_namespaces(7)).
pub(super) fn replace(names: &Names, are_slaves: bool) -> Result<bool, (Step, Errno)> {
    let at = |step: Step| move |errno: Errno| (step, errno);
    // A link is followed, as whoever reads the file follows it.
    let Ok(file) = fs::canonicalize(RESOLV_CONF) else { return Ok(false) };
    // A byte that is no UTF-8 spoils its own line alone.
    let host = fs::read(&file).unwrap_or_default();
    let text = text(names, &String::from_utf8_lossy(&host));
    match mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE) {
        Ok(()) => {}
        // The root is no mount, as in a chroot(2).
        Err(Errno::EINVAL) if are_slaves => {}
        Err(errno) => return Err((Step::Mounts, errno)),
    }
    let base = BASES.iter().map(Path::new).find(|base| is_base_for(base, &file));
    let base = base.ok_or((Step::ResolvConf, Errno::ENOENT))?;
    let options = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), base, Some("tmpfs"), options, Some("size=64k,mode=0755"))
        .map_err(at(Step::ResolvConf))?;
    let ours = base.join("resolv.conf");
    let covered = fs::write(&ours, text)
        // Everybody reads it, whatever the caller's umask is.
        .and_then(|()| fs::set_permissions(&ours, Permissions::from_mode(0o644)))
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
        .and_then(|()| cover(&ours, &file));
    for door in SIDE_DOORS {
        // Most hosts have none of them.
        let _absent = cover(&ours, &PathBuf::from(door));
    }
    umount2(base, MntFlags::MNT_DETACH).map_err(at(Step::ResolvConf))?;
    covered.map_err(at(Step::ResolvConf))?;
    Ok(true)
}

fn cover(ours: &Path, file: &Path) -> Result<(), Errno> {
    mount(Some(ours), file, NONE, MsFlags::MS_BIND, NONE)
}

/// Whether `file` can be covered while `base` is.
fn is_base_for(base: &Path, file: &Path) -> bool {
    !file.starts_with(base)
        && fs::canonicalize(base).is_ok_and(|real| real == base && real.is_dir())
}

/// The text of our file: our resolver; domains and options as `host` has them.
fn text(names: &Names, host: &str) -> String {
    let mut text = format!("nameserver {}\n", names.resolver);
    if !names.domains.is_empty() {
        text.push_str(&format!("search {}\n", names.domains.join(" ")));
    }
    for line in host.lines() {
        let keeps = match line.split_whitespace().next() {
            Some("options") => true,
            Some("search" | "domain") => names.domains.is_empty(),
            Some(_) | None => false,
        };
        if keeps {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# ours\nnameserver 127.0.0.53\nsearch example.org\noptions edns0\n";

    #[test]
    fn only_the_resolver_is_another() {
        let resolver = [10, 0, 2, 3].into();
        let names = Names { resolver, domains: Vec::new() };
        assert_eq!(text(&names, ""), "nameserver 10.0.2.3\n");
        let expected = "nameserver 10.0.2.3\nsearch example.org\noptions edns0\n";
        assert_eq!(text(&names, HOST), expected);
        let names = Names { resolver, domains: vec!["a.test".into(), "b.test".into()] };
        let expected = "nameserver 10.0.2.3\nsearch a.test b.test\noptions edns0\n";
        assert_eq!(text(&names, HOST), expected);
    }

    #[test]
    fn file_below_a_folder_is_not_covered_through_it() {
        assert!(is_base_for(Path::new("/proc"), Path::new("/etc/resolv.conf")));
        assert!(!is_base_for(Path::new("/proc"), Path::new("/proc/resolv.conf")));
        assert!(!is_base_for(Path::new("/nonexistent"), Path::new("/etc/resolv.conf")));
    }
}
