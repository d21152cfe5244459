//! The Debian package: built by its one command, installed beside Debian's own programs, removed.
//!
//! Everything happens in a root that lies over the machine's own as an overlay in memory, so that
//! dpkg knows what is installed and the machine stays as it is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use slirp_tests::*;

/// Makes the root in the folder that replaces FOLDER. The manual pages' index is not renewed at
/// each step.
const ROOT: &str = "mount -t tmpfs tmpfs FOLDER
    mkdir FOLDER/above FOLDER/work FOLDER/root
    mount -t overlay overlay -o lowerdir=/,upperdir=FOLDER/above,workdir=FOLDER/work FOLDER/root
    mount -t proc proc FOLDER/root/proc
    mount --bind /dev FOLDER/root/dev
    rm -f FOLDER/root/var/lib/man-db/auto-update";

/// A root in which packages are installed.
struct Root {
    world: World,
    folder: PathBuf,
}

impl Root {
    fn build() -> Result<Self, Missing> {
        let world = World::root()?;
        is_installed("dpkg-deb")?;
        let folder = world.folder().join("machine");
        std::fs::create_dir(&folder).expect("the folder is the test's own");
        world.host.script(&ROOT.replace("FOLDER", text(&folder)));
        Ok(Self { world, folder })
    }

    /// What a script prints that succeeds inside.
    fn script(&self, script: &str) -> String {
        let root = self.folder.join("root");
        let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
        let argv = ["chroot", text(&root), "env", path, "sh", "-euc", script];
        let output = self.world.host.exec(&argv);
        assert!(output.status.success(), "{script}: {}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Installs a package file.
    fn install(&self, package: &Path) {
        let name = text(package).rsplit('/').next().unwrap_or_default();
        let inside = format!("{}/root/tmp/{name}", text(&self.folder));
        // `/tmp` is below the overlay.
        self.world.host.script(&format!("cp {} {inside}", text(package)));
        self.script(&format!("dpkg --install /tmp/{name}; rm /tmp/{name}"));
    }

    /// Files that differ from the machine's, without what dpkg and its companions note.
    fn changes(&self) -> Vec<String> {
        let noted = ["var/lib/dpkg", "var/lib/man-db", "var/log", "var/cache", "etc/ld.so.cache"];
        let found = self.world.host.script(&format!(
            "cd {}/above && find . ! -type d ! -path './tmp/*' -printf '%P\\n'",
            text(&self.folder)
        ));
        let is_noted = |line: &&str| noted.iter().any(|noted| line.starts_with(noted));
        found.lines().filter(|line| !is_noted(line)).map(str::to_owned).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}

/// The package that the tests share.
pub(crate) fn package() -> &'static Path {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
    PACKAGE.get_or_init(|| build_package(&mut Command::new(SCRIPT), &folder))
}

const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../slirp-cli/packaging/deb");

/// The package, made of the programs under test by this command.
fn build_package(script: &mut Command, folder: &Path) -> PathBuf {
    let programs = folder.join("programs");
    std::fs::create_dir_all(&programs).expect("the folder is the test's own");
    for (program, name) in [(plugin_under_test(), "slirp"), (binary_under_test(), "slirp4netns")] {
        let _ = std::fs::remove_file(programs.join(name));
        std::fs::copy(program, programs.join(name)).expect("the folder is the test's own");
    }
    let output = script
        .args([Path::new("--programs"), &programs, folder])
        .env("SLIRP_DEB_COMPRESSION", "none")
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .expect("the script can be run");
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complaint}");
    // "SHA-256  FILE"
    PathBuf::from(said.trim().rsplit("  ").next().unwrap_or_default())
}

/// A package of somebody else that has the same program.
fn foreign_package(world: &World) -> PathBuf {
    let folder = world.folder().join("foreign");
    world.host.script(&format!(
        "mkdir -p {0}/DEBIAN {0}/usr/bin
        printf '#!/bin/sh\\necho foreign\\n' > {0}/usr/bin/slirp4netns
        chmod 755 {0}/usr/bin/slirp4netns
        printf '%s: foreign\\n' Package Maintainer Description > {0}/DEBIAN/control
        printf 'Version: 1\\nArchitecture: all\\n' >> {0}/DEBIAN/control
        dpkg-deb -Znone --build {0} >&2",
        text(&folder)
    ));
    world.folder().join("foreign.deb")
}

#[test]
fn package_gives_way_to_other_packages_and_leaves_nothing_behind() {
    let root = needs!(Root::build());
    let is_ours = || {
        let said = root.script("slirp4netns --version");
        said.contains("commit: rust-slirp-")
    };

    // Debian's own is installed, and stays.
    root.install(package());
    assert!(!is_ours());
    assert_eq!(root.script("dpkg -S /usr/bin/slirp4netns"), "slirp4netns: /usr/bin/slirp4netns\n");
    assert!(root.script("/usr/libexec/slirp/slirp4netns --version").contains("rust-slirp"));

    // It goes, and ours is there at once, with its manual page.
    root.script("dpkg --force-depends --remove slirp4netns >&2");
    assert!(is_ours());
    let page = root.script("zcat /usr/share/man/man1/slirp4netns.1.gz");
    assert_eq!(page, include_str!("../../../slirp-cli/man/slirp4netns.1"));

    // Another one comes and goes.
    root.install(&foreign_package(&root.world));
    assert_eq!(root.script("slirp4netns"), "foreign\n");
    root.script("dpkg --purge foreign >&2");
    assert!(is_ours());

    // An ordinary user has the program, and runtimes have the plugin.
    let said = root.script("setpriv --reuid 65534 --regid 65534 --clear-groups slirp --version");
    assert!(said.starts_with(concat!("slirp ", env!("CARGO_PKG_VERSION"), "\n")), "{said}");
    let said = root.script("CNI_COMMAND=VERSION /usr/lib/cni/slirp");
    assert!(said.contains("\"supportedVersions\""), "{said}");

    // Nothing is left but that Debian's package is gone.
    root.script("dpkg --purge slirp-rs >&2");
    let gone = root.script("cat /var/lib/dpkg/info/slirp4netns.list 2>/dev/null || :");
    let is_debians = |path: &String| path.contains("slirp4netns") || gone.contains(path.as_str());
    let left: Vec<String> = root.changes().into_iter().filter(|path| !is_debians(path)).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn package_has_what_belongs_to_the_program() {
    let root = needs!(Root::build());
    root.install(package());
    let files = root.script("dpkg --listfiles slirp-rs");
    for file in [
        "/usr/bin/slirp",
        "/usr/lib/cni/slirp",
        "/usr/lib/systemd/user/slirp@.service",
        "/usr/libexec/slirp/pasta",
        "/usr/libexec/slirp/passt",
        "/usr/libexec/slirp/pesto",
        "/usr/libexec/slirp/slirp-hook",
        "/usr/libexec/slirp/slirp4netns",
        "/usr/share/bash-completion/completions/slirp4netns",
        "/usr/share/doc/slirp-rs/changelog.gz",
        "/usr/share/doc/slirp-rs/copyright",
        "/usr/share/doc/slirp-rs/crates.cdx.json",
        "/usr/share/doc/slirp-rs/third-party-licences.gz",
        "/usr/share/fish/vendor_completions.d/slirp4netns.fish",
        "/usr/share/man/man1/slirp.1.gz",
        "/usr/share/man/man1/slirp-pasta.1.gz",
        "/usr/share/man/man1/slirp-passt.1.gz",
        "/usr/share/man/man1/slirp-pesto.1.gz",
        "/usr/share/man/man1/slirp-slirp4netns.1.gz",
        "/usr/share/man/man7/slirp-egress.7.gz",
        "/usr/share/man/man7/slirp4netns-extensions.7.gz",
        "/usr/share/slirp/apparmor",
        "/usr/share/zsh/vendor-completions/_pasta",
        "/usr/share/zsh/vendor-completions/_slirp4netns",
    ] {
        assert!(files.lines().any(|line| line == file), "{file} is missing:\n{files}");
    }
    // It stands for the release of slirp4netns that it says it is.
    let provided = root.script("dpkg-query --show --showformat '${Provides}' slirp-rs");
    let version = root.script("/usr/libexec/slirp/slirp4netns --version");
    let version = version.lines().next().and_then(|line| line.strip_prefix("slirp4netns version "));
    assert_eq!(provided, format!("slirp4netns (= {})", version.expect("it says so")));
    // No setting of the machine, and no privilege.
    assert!(!files.contains("/etc/"), "{files}");
    let extraordinary = "dpkg --listfiles slirp-rs | xargs -I{} find {} -maxdepth 0 \
        '(' -perm /6000 -o -perm /o=w ! -type l -o ! -user root ')'";
    assert_eq!(root.script(extraordinary), "");
    // Each linked crate with its licence.
    let crates = root.script("cat /usr/share/doc/slirp-rs/crates.cdx.json");
    let crates: serde_json::Value = serde_json::from_str(&crates).expect("it is JSON");
    let components = crates["components"].as_array().expect("it has components");
    let smoltcp = components.iter().find(|component| component["name"] == "smoltcp");
    let smoltcp = smoltcp.expect("the engine is linked");
    assert_eq!(smoltcp["licenses"][0]["expression"], "0BSD");
    assert_eq!(smoltcp["hashes"][0]["content"].as_str().map(str::len), Some(64));
    assert!(components.iter().all(|component| component["name"] != "proptest"));
    let texts = root.script("zcat /usr/share/doc/slirp-rs/third-party-licences.gz");
    assert!(texts.contains("smoltcp 0.") && texts.contains("MERCHANTABILITY"));
}

/// Copies the checkout, without inputs that no program is built from, to a folder in which files
/// have other times and rights.
const COPY: &str = "cd CHECKOUT
    git ls-files -z --cached --others --exclude-standard -- . ':!fuzz/corpus' |
        xargs -0 cp --parents -t FOLDER
    find FOLDER -type f -exec chmod go-rwx {} + -exec touch --date=2001-02-03 {} +
    git rev-parse --absolute-git-dir";

#[test]
fn package_is_the_same_wherever_it_is_built() {
    let world = needs!(World::root());
    needs!(is_installed("dpkg-deb").and_then(|()| is_installed("git")));
    let checkout = world.folder().join("another checkout");
    std::fs::create_dir(&checkout).expect("the folder is the test's own");
    let copy =
        COPY.replace("CHECKOUT", CHECKOUT).replace("FOLDER", &format!("'{}'", text(&checkout)));
    let output = Command::new("sh").args(["-euc", &copy]).output().expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let git = String::from_utf8(output.stdout).expect("paths of the tests are UTF-8");
    let script = checkout.join("slirp-cli/packaging/deb");
    let mut build = Command::new("sh");
    build.args(["-c", "umask 077; exec \"$@\"", "sh", text(&script)]).current_dir("/");
    build.envs([("GIT_DIR", git.trim()), ("LC_ALL", "C.UTF-8"), ("TZ", "Asia/Tokyo")]);
    build.env("CARGO_TARGET_DIR", world.folder().join("another target"));
    let again = build_package(&mut build, world.folder());
    let read = |package: &Path| std::fs::read(package).expect("the package is there");
    assert!(read(package()) == read(&again), "{} differs", again.display());
}

/// The package with a newer profile of AppArmor.
fn newer_package(world: &World) -> PathBuf {
    let (folder, file) = (world.folder().join("newer"), world.folder().join("newer.deb"));
    world.host.script(&format!(
        "dpkg-deb -R {} {1}
        sed -i 's/^Version: .*/Version: 99/' {1}/DEBIAN/control
        echo '# newer' >> {1}/usr/share/slirp/apparmor
        dpkg-deb -Znone --build {1} {2} >&2",
        text(package()),
        text(&folder),
        text(&file)
    ));
    file
}

#[test]
fn profile_is_loaded_again_by_an_upgrade_and_unloaded_with_the_package() {
    const PROFILE: &str = "/etc/apparmor.d/slirp";
    let root = needs!(Root::build());
    // A machine with AppArmor, whose parser notes how it is called.
    root.script(
        "mkdir -p /sys/kernel/security/apparmor
        printf '#!/bin/sh\necho \"$*\" >> /parsed\n' > /usr/sbin/apparmor_parser
        chmod 755 /usr/sbin/apparmor_parser",
    );
    let last_call = || root.script("tail -n 1 /parsed; rm -f /parsed");
    let profile = || root.script(&format!("cat {PROFILE} || echo none"));
    let (loaded, unloaded) = (format!("--replace {PROFILE}\n"), format!("--remove {PROFILE}\n"));
    root.install(package());
    assert_eq!(last_call(), loaded);
    assert_eq!(profile(), include_str!("../../../slirp-cli/packaging/apparmor"));
    let newer = newer_package(&root.world);
    root.install(&newer);
    assert_eq!(last_call(), loaded);
    assert!(profile().ends_with("# newer\n"), "{}", profile());
    root.script("dpkg --remove slirp-rs >&2");
    assert_eq!(last_call(), unloaded);
    assert_eq!(profile(), "none\n");

    // What an administrator has written outlasts upgrades, and goes with the package's settings.
    root.install(package());
    root.script(&format!("echo '# local' >> {PROFILE}"));
    let changed = profile();
    root.install(&newer);
    assert_eq!((last_call(), profile()), (loaded, changed.clone()));
    root.script("dpkg --remove slirp-rs >&2");
    assert_eq!((last_call(), profile()), (unloaded, changed));
    root.script("dpkg --purge slirp-rs >&2");
    assert_eq!(profile(), "none\n");
}

#[test]
fn unit_and_profile_are_understood() {
    let root = needs!(Root::build());
    root.install(package());
    if let Err(missing) = is_installed("systemd-analyze") {
        say_skipped(&missing);
    } else {
        let unit = "/usr/lib/systemd/user/slirp@.service";
        let verify =
            format!("XDG_RUNTIME_DIR=/tmp systemd-analyze --user verify --man=no {unit} 2>&1");
        assert_eq!(root.script(&verify), "");
    }
    if let Err(missing) = is_installed("apparmor_parser") {
        say_skipped(&missing);
    } else {
        // Without what parsers know since version 4 only.
        root.script(
            "major=$(apparmor_parser --version | grep -o '[0-9]*' | head -n 1)
            [ $major -ge 4 ] && old='$^' || old='^abi |^ *userns,'
            grep -Ev \"$old\" /usr/share/slirp/apparmor | \
                apparmor_parser --skip-kernel-load --skip-cache",
        );
    }
}
