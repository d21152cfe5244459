//! The README on a bare machine: Debian's smallest system, and the packages that the README has
//! installed.
//!
//! `.ci/run` makes the root of that machine, runs the README's first command in it, and sets
//! `SLIRP_REQUIRE_BARE=1`. Elsewhere the tests say `SKIPPED` unless it is there. Here the root is
//! below an overlay in memory, with the network of a test's world.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use slirp_tests::*;

use crate::package::package;
use crate::readme::block;

/// Where `.ci/run` keeps the root. The file has the command whose packages are there.
const ROOT: &str = "/opt/slirp-tests/debian-12";
const INSTALLED: &str = "installed";

const MOUNTS: &str = "mount -t tmpfs tmpfs FOLDER
    mkdir FOLDER/above FOLDER/work FOLDER/root
    mount -t overlay overlay -o lowerdir=ROOT,upperdir=FOLDER/above,workdir=FOLDER/work FOLDER/root
    cd FOLDER/root
    for folder in dev sys; do mount --rbind /$folder $folder; done
    mount -t proc proc proc
    echo 'nameserver 127.0.0.53' > etc/resolv.conf
    echo 'tester:x:1500:1500::/home:/bin/sh' >> etc/passwd
    echo 'tester:x:1500:' >> etc/group";

/// No user namespace can be made in a chroot.
const ENTER: &str = "cd ROOT; pivot_root . mnt; umount -l /mnt; exec \"$@\"";

struct Machine {
    world: World,
    root: PathBuf,
    _resolver: CannedDns,
}

impl Machine {
    /// `None` if there is none; what is missing has been said.
    fn build() -> Result<Option<Self>, Missing> {
        if let Err(missing) = is_there(&format!("{ROOT}/{INSTALLED}")) {
            let required = std::env::var_os("SLIRP_REQUIRE_BARE").is_some_and(|value| value == "1");
            assert!(!required, "SLIRP_REQUIRE_BARE=1 and {}", missing.0);
            say_skipped(&missing);
            return Ok(None);
        }
        let world = World::root()?;
        let folder = world.folder().join("machine");
        std::fs::create_dir(&folder).expect("the folder is the test's own");
        world.host.script(&MOUNTS.replace("FOLDER", text(&folder)).replace("ROOT", ROOT));
        // An answer without an error and without a record.
        let answer = b"\0\0\x81\x80\0\0\0\0\0\0\0\0".to_vec();
        let resolver = CannedDns::start(&world.host, IpAddr::from([127, 0, 0, 53]), answer);
        Ok(Some(Self { world, root: folder.join("root"), _resolver: resolver }))
    }

    /// What a script of this account says that succeeds.
    fn script(&self, account: Account, script: &str) -> String {
        let enter = ENTER.replace("ROOT", text(&self.root));
        let path = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let argv = [
            &["unshare", "--mount", "sh", "-euc", &enter, "sh"],
            account.prefix(),
            &["env", "-i", path, "HOME=/tmp", "sh", "-euc", script],
        ];
        let output = self.world.host.exec(&argv.concat());
        assert!(output.status.success(), "{script}: {}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Puts a file of ours there.
    fn put(&self, file: &Path, path: &str) {
        let path = self.root.join(path);
        self.world.host.script(&format!("install -D {} {}", text(file), text(&path)));
    }

    /// Root and an ordinary user do what the README tells them to try.
    fn assert_works(&self) {
        for account in [Account::Root, Account::Ordinary] {
            let said = self.script(account, &format!("cd /tmp\n{}", block("Try it", "sh")));
            assert!(said.contains(", 0 failures\n"), "{said}");
            assert!(said.ends_with("\nHTTP 200\n"), "{said}");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}

/// The root has the packages that the README names, and no others but the smallest system's. The
/// programs are built outside of it.
#[test]
fn programs_work_on_a_bare_machine_as_the_readme_installs_them() {
    let Some(machine) = needs!(Machine::build()) else { return };
    let (packages, programs) = block("Install", "sh").split_once("\ncargo").expect("two commands");
    assert_eq!(std::fs::read_to_string(Path::new(ROOT).join(INSTALLED)).unwrap().trim(), packages);
    machine.put(plugin_under_test(), "checkout/target/release/slirp");
    machine.put(binary_under_test(), "checkout/target/release/slirp4netns");
    let cargo = "cargo() { :; }; cd /checkout";
    machine.script(Account::Root, &format!("{cargo}\ncargo{programs}"));
    machine.assert_works();
}

#[test]
fn package_works_on_a_bare_machine() {
    let Some(machine) = needs!(Machine::build()) else { return };
    machine.put(package(), "tmp/slirp.deb");
    machine.script(Account::Root, "dpkg --install /tmp/slirp.deb");
    machine.assert_works();
    let said = machine.script(Account::Ordinary, "slirp4netns --version");
    assert!(said.contains("rust-slirp"), "{said}");
    machine.script(Account::Root, "dpkg --purge slirp-rs; ! command -v slirp slirp4netns");
}

/// What the linker needs is there: the programs have nothing of C in them.
#[test]
fn rust_program_is_built_on_a_bare_machine() {
    let Some(machine) = needs!(Machine::build()) else { return };
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc runs");
    let sysroot = String::from_utf8(output.stdout).expect("paths of the tests are UTF-8");
    let rust = machine.root.join("opt/rust");
    machine.world.host.script(&format!(
        "mkdir -p {0}; mount --bind {1} {0}",
        text(&rust),
        sysroot.trim()
    ));
    let build =
        "cd /tmp; echo 'fn main() { println!(\"built\") }' > it.rs; /opt/rust/bin/rustc it.rs";
    assert_eq!(machine.script(Account::Root, &format!("{build}; ./it")), "built\n");
}
