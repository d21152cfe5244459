//! Podman in a [`Session`], with the binary or the plugin under test as its network.
//!
//! Owns the settings: the defaults of an ordinary user or of root, without cgroups and journal and
//! with plain folders as storage, so that Podman leaves the machine alone. Its image only links
//! into `/usr`. Every container mounts the host's `/usr`, so that containers run the host's own
//! programs.

use crate::binary::plugin_under_test;
use crate::namespace::{Account, Background, Output};
use crate::requirement::{Missing, is_there};
use crate::session::Session;

/// Path in every container of a server on TCP and UDP: `python3 WHO ADDRESS PORT...`. It tells
/// every client how it sees it, as `tcp 192.0.2.1` or `udp 192.0.2.1`, and says `serving` once it
/// listens.
pub const WHO: &str = "/who.py";

/// Ends by itself long after every test.
const WHO_SCRIPT: &str = "import selectors, signal, socket, sys
signal.alarm(120)
address = sys.argv[1]
family = socket.AF_INET6 if ':' in address else socket.AF_INET
ready = selectors.DefaultSelector()
for port in map(int, sys.argv[2:]):
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        server = socket.socket(family, kind)
        server.bind((address, port))
        if kind == socket.SOCK_STREAM:
            server.listen(64)
        ready.register(server, selectors.EVENT_READ)
print('serving', flush=True)
while True:
    for key, _ in ready.select():
        server = key.fileobj
        if server.type == socket.SOCK_STREAM:
            client, source = server.accept()
            client.sendall(b'tcp ' + source[0].encode())
            client.close()
        else:
            _, source = server.recvfrom(65536)
            server.sendto(b'udp ' + source[0].encode(), source)
";

/// The network that containers ask for by its name.
const SLIRPNET: &str = r#"{"cniVersion":"1.0.0","name":"slirpnet",
    "plugins":[{"type":"slirp","capabilities":
    {"portMappings":true,"ips":true,"mac":true,"dns":true}}]}"#;

/// Everything in it is the host's, but for one program that needs no libraries.
const IMAGE_SCRIPT: &str = "umask 022; rm -rf image; mkdir image image/etc image/usr image/tmp
    for folder in bin sbin lib lib64; do ln -s usr/$folder image/$folder; done
    cp who.py \"$(command -v busybox)\" image/; tar -C image -cf image.tar .";

/// The programs that [`Podman`] needs.
const PROGRAMS: &[&str] = &["podman", "conmon", "runc", "newuidmap", "tar"];

/// The same where the network is made by plugins.
const CNI_PROGRAMS: &[&str] =
    &["podman", "conmon", "runc", "crun", "newuidmap", "tar", "mountpoint"];

/// A helper of Debian's, of which Podman wants the folder.
const CNI_FOLDER: &str = "/usr/lib/cni";

/// What root's Podman writes to besides `/etc`, hidden behind folders of the session's own; and a
/// mount table that crun takes, as root's containers can do without cgroups only there.
const CNI_SESSION_SCRIPT: &str = "for folder in /run /var/lib /var/cache /dev/shm; do
        mount -t tmpfs -o mode=1777 tmpfs $folder
    done
    chmod 0755 /run
    if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi";

/// Podman, and an image called `box`.
#[derive(Debug)]
pub struct Podman {
    /// Where it runs.
    pub session: Session,
    /// The user that runs it.
    pub account: Account,
}

impl Podman {
    /// Writes its settings and imports the image.
    ///
    /// # Errors
    /// [`Missing`], when this machine lacks a program or what a [`Session`] takes.
    ///
    /// # Panics
    /// When Podman does not work at all.
    pub fn build() -> Result<Self, Missing> {
        let session = Session::open(PROGRAMS)?;
        session.write_image();
        session.write_settings();
        let this = Self { session, account: Account::Ordinary };
        this.succeed(&["import", "--quiet", "image.tar", "box"]);
        Ok(this)
    }

    /// The same with the plugin under test as the CNI network `slirpnet`; what `engine` says about
    /// Podman goes into the section of that name.
    ///
    /// # Errors
    /// [`Missing`], when this machine lacks a program or what a [`Session`] takes.
    ///
    /// # Panics
    /// When Podman does not work at all.
    pub fn with_plugin(account: Account, engine: &str) -> Result<Self, Missing> {
        is_there(CNI_FOLDER)?;
        let session = Session::open(CNI_PROGRAMS)?;
        session.write_image();
        let this = Self { session, account };
        let prepared = this.session.exec_as(Account::Root, &["sh", "-euc", CNI_SESSION_SCRIPT]);
        assert!(prepared.status.success(), "{}", prepared.stderr);
        this.session.write_plugin_settings(account, engine);
        this.succeed(&["import", "--quiet", "image.tar", "box"]);
        Ok(this)
    }

    /// Runs `podman` with these arguments to its end.
    pub fn exec(&self, arguments: &[&str]) -> Output {
        self.session.exec_as(self.account, &[&["podman"], arguments].concat())
    }

    /// The same for arguments that must succeed; hands back standard output.
    ///
    /// # Panics
    /// When it fails.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.exec(arguments);
        assert!(
            output.status.success(),
            "podman {arguments:?}: {:?}\n{}\n{}",
            output.status,
            output.stdout,
            output.stderr
        );
        output.stdout
    }

    /// Runs a shell script in a new container on this network, to its end.
    pub fn run(&self, network: &str, script: &str) -> Output {
        let run = ["run", "--rm", "--volume=/usr:/usr:ro", "--network", network, "box"];
        self.exec(&[run.as_slice(), &["sh", "-euc", script]].concat())
    }

    /// The same for a script that must succeed; hands back standard output.
    ///
    /// # Panics
    /// When it fails.
    pub fn script(&self, network: &str, script: &str) -> String {
        let output = self.run(network, script);
        assert!(output.status.success(), "`{script}` on {network}: {}", output.stderr);
        output.stdout
    }

    /// Starts [`WHO`] in a new container and returns once it serves.
    ///
    /// # Panics
    /// When it does not get that far.
    pub fn serve(&self, name: &str, options: &[&str], address: &str, ports: &[&str]) {
        let run = ["run", "--detach", "--volume=/usr:/usr:ro", "--name", name];
        let server = ["box", "/usr/bin/python3", WHO, address];
        self.succeed(&[run.as_slice(), options, &server, ports].concat());
        self.wait_for(name, "serving\n");
    }

    /// Waits until a container has printed a text.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for(&self, name: &str, text: &str) {
        crate::wait_until(crate::IO_LIMIT, &format!("{name} says {text:?}"), || {
            self.succeed(&["logs", name]).contains(text)
        });
    }

    /// Starts `podman` with these arguments and leaves it running.
    pub fn spawn(&self, arguments: &[&str]) -> Background {
        self.session.spawn(&[&["podman"], arguments].concat())
    }
}

impl Session {
    /// Makes `image.tar` in the home, and `who.py` beside it.
    ///
    /// # Panics
    /// When that fails.
    pub fn write_image(&self) {
        std::fs::write(self.home().join("who.py"), WHO_SCRIPT).expect("the home is writable");
        self.succeed(&["sh", "-euc", IMAGE_SCRIPT]);
    }

    /// Writes the settings that Podman and Buildah share.
    ///
    /// # Panics
    /// When that fails.
    pub fn write_settings(&self) {
        let settings = format!(
            "[engine]\nnetwork_cmd_path = \"{}\"\nruntime = \"runc\"\n\
             cgroup_manager = \"cgroupfs\"\n\
             events_logger = \"file\"\n[containers]\nlog_driver = \"k8s-file\"\n",
            self.world.reachable_binary().display()
        );
        let folder = self.home().join(".config/containers");
        std::fs::create_dir_all(&folder).expect("the home is writable");
        std::fs::write(folder.join("containers.conf"), settings).expect("the home is writable");
        std::fs::write(folder.join("storage.conf"), "[storage]\ndriver = \"vfs\"\n")
            .expect("the home is writable");
        self.world.host.script(&format!("chown -R 1500:1500 {}/.config", self.home().display()));
    }

    /// Writes settings of Podman's CNI backend where Podman looks for those of this account, and
    /// the network beside them.
    fn write_plugin_settings(&self, account: Account, engine: &str) {
        let home = self.home().join(".config");
        let plugins = self.world.folder().join("cni");
        let (settings, networks, runtime, cgroups, folders) = match account {
            // For root, only crun works without cgroups, and storage needs explicit folders.
            Account::Root => (
                "/etc/containers".into(),
                "/etc/cni/net.d".into(),
                "crun",
                "cgroups = \"disabled\"",
                "runroot = \"/run/containers\"\ngraphroot = \"/var/lib/containers\"",
            ),
            Account::Ordinary => (home.join("containers"), home.join("cni/net.d"), "runc", "", ""),
        };
        let containers_conf = format!(
            "[network]\nnetwork_backend = \"cni\"\n\
             cni_plugin_dirs = [\"{plugins}\", \"{CNI_FOLDER}\"]\n\
             [engine]\nnetwork_cmd_path = \"{binary}\"\nruntime = \"{runtime}\"\n\
             cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n{engine}\n\
             [containers]\n{cgroups}\nlog_driver = \"k8s-file\"\n",
            plugins = plugins.display(),
            binary = self.world.reachable_binary().display(),
        );
        let script = format!(
            "mkdir -p {home} {settings} {networks}
            install -D --mode=0755 {plugin} {plugins}/slirp
            cat > {settings}/containers.conf <<END
{containers_conf}
END
            cat > {settings}/storage.conf <<END
[storage]
driver = \"vfs\"
{folders}
END
            echo '{SLIRPNET}' > {networks}/slirpnet.conflist
            chown -R 1500:1500 {home}",
            home = home.display(),
            settings = settings.display(),
            networks = networks.display(),
            plugin = plugin_under_test().display(),
            plugins = plugins.display(),
        );
        let written = self.exec_as(Account::Root, &["sh", "-euc", &script]);
        assert!(written.status.success(), "{}", written.stderr);
    }
}
